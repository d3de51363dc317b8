"""Where a run came from: the weights it started from, and the cell of a bench that it is. Nothing here is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...plain_yaml import read_yaml
from ...reading import read_json
from ..summary import number

_LARGEST = 2**20  # bytes of a cell


@dataclass(frozen=True)
class Cell:
    """What a bench says of a run."""

    id: str
    attack: str
    """The attack's label, which tells rates and targets of one trigger apart."""
    defence: str
    """The defence's label, ``none`` where there is none."""
    parent: str | None
    """The id of the cell whose model the run started from."""
    peak_memory_mb: float | None
    command: str | None
    """The command that repeats the run."""


def read_init_from(path: Path) -> str | None:
    """Find the weights that a run started from.

    Args:
        path: A run's ``config.yaml``.

    Returns:
        ``model.init_args.init_from`` or ``model.init_from``, as it stands there; None where there is none.

    Raises:
        UserMistake: If the file is not a YAML mapping.
    """
    if not path.is_file():
        return None
    config = read_yaml(path, "config of a run")
    model = _mapping(_mapping(config).get("model"))
    for part in (_mapping(model.get("init_args")), model):
        if isinstance(part.get("init_from"), str):
            return str(part["init_from"])
    return None


def read_cell(path: Path) -> Cell | None:
    """Read what a bench says of a run.

    Args:
        path: A run's ``cell.json``.

    Returns:
        Its labels; None where there is no such file.

    Raises:
        UserMistake: If the file does not name a cell, its attack and its defence.
    """
    if not path.is_file():
        return None
    content = _mapping(read_json(path, "cell of a bench", _LARGEST))
    cell, attack, defence = (_name(content.get(name)) for name in ("cell", "attack", "defence"))
    if cell is None or attack is None or defence is None:
        raise UserMistake(f"{path} is not a cell of a bench: it must name cell, attack and defence; move it away")
    memory = number(content.get("peak_memory_mb"))
    return Cell(cell, attack, defence, _name(content.get("parent")), memory, _name(content.get("command")))


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
