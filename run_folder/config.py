"""``config.yaml``: the full settings of a run, as LightningCLI saves them. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..plain_yaml import read_yaml

CONFIG = "config.yaml"
"""The name of the file."""


class RunConfig(NamedTuple):
    """What a config says of a run."""

    method: str | None
    """The class that was trained, by its path as it stands there; None where there is none."""
    init_from: str | None
    """The weights that the run started from, as they stand there; None where there are none."""


def read_config(folder: Path) -> RunConfig | None:
    """Read what a run was.

    Args:
        folder: The run folder.

    Returns:
        The class and the weights; None where there is no such file.

    Raises:
        UserMistake: If the file is no YAML, or asks for objects.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    model = _mapping(_mapping(read_yaml(path, "config of a run")).get("model"))
    started = (_text(part.get("init_from")) for part in (_mapping(model.get("init_args")), model))
    return RunConfig(_text(model.get("class_path")), next(filter(None, started), None))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
