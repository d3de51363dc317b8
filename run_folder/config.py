"""``config.yaml``: the full settings of a run, as LightningCLI saves them. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files.plain_yaml import read_yaml

CONFIG = "config.yaml"
"""The name of the file."""


class RunConfig(NamedTuple):
    """What a config says of a run."""

    method: str | None
    """The class that was trained, by its path as it stands there; None where there is none."""
    init_from: str | None
    """The weights that the run started from, as they stand there; None where there are none."""
    train_shards: tuple[str, ...] = ()
    """The training shards, as they stand there; empty where there are none."""


def read_config(folder: Path) -> RunConfig | None:
    """Read what a run was.

    Args:
        folder: The run folder.

    Returns:
        The class, the weights and the shards; None where there is no such file.

    Raises:
        UserMistake: If the file is no YAML, or asks for objects.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    content = _mapping(read_yaml(path, "config of a run"))
    model, data = _mapping(content.get("model")), _mapping(content.get("data"))
    started = (_text(part.get("init_from")) for part in (_mapping(model.get("init_args")), model))
    streamed = (_texts(part.get("train_shards")) for part in (_mapping(data.get("init_args")), data))
    return RunConfig(
        _text(model.get("class_path")), next(filter(None, started), None), next(filter(None, streamed), ())
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    return tuple(text for text in found if isinstance(text, str)) if isinstance(found, list) else ()
