"""``cell.json``: the record of a finished cell of a bench, which outlives the machine. It is not trusted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contracts import UserMistake
from ..files.reading import read_json
from ..files.tables import number
from ..files.writing import write_text
from .results import COLUMNS

CELL = "cell.json"
"""The name of the file."""
_MAX_BYTES = 2**20  # bytes of a cell


@dataclass(frozen=True)
class CellLabels:
    """What a bench calls a run, and what it says of it."""

    id: str
    attack: str
    """The attack's label, which distinguishes rates and targets of one trigger."""
    defence: str
    """The defence's label, ``none`` where there is none."""
    parent: str | None
    """The id of the cell whose model the run started from."""
    peak_memory_mb: float | None
    command: str | None
    """The command that repeats the run."""


def read_labels(folder: Path) -> CellLabels | None:
    """Read what a bench calls a run.

    Args:
        folder: The run folder.

    Returns:
        Its labels; None where there is no such file.

    Raises:
        UserMistake: If the file does not name a cell, its attack and its defence.
    """
    path = folder / CELL
    if not path.is_file():
        return None
    found = read_json(path, "cell of a bench", _MAX_BYTES)
    content = found if isinstance(found, dict) else {}
    cell, attack, defence = (_name(content.get(name)) for name in ("cell", "attack", "defence"))
    if cell is None or attack is None or defence is None:
        raise UserMistake(f"{path} is not a cell of a bench: it must name cell, attack and defence; move it away")
    memory = number(content.get("peak_memory_mb"))
    return CellLabels(cell, attack, defence, _name(content.get("parent")), memory, _name(content.get("command")))


def write_record(record: dict[str, Any], *paths: Path) -> None:
    """Write a record, at once or not at all, to each of the files."""
    text = json.dumps(record, indent=1, ensure_ascii=True) + "\n"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a record; None where there is none.

    Raises:
        UserMistake: If the file is no record.
    """
    if not path.exists():
        return None
    try:
        record = read_json(path, "record of a cell")
        rows = record["results"]
        if not all(set(COLUMNS) <= set(row) for row in rows):
            raise ValueError("columns")
        if not rows or any(not isinstance(row[column], str) for row in rows for column in COLUMNS):
            raise ValueError("cells")
        seconds, memory = float(record["wall_seconds"]), float(record["peak_memory_mb"])
        if not isinstance(record.get("logged", {}), dict) or not isinstance(record.get("arguments", []), list):
            raise ValueError("parts")
        names = [record[name] for name in ("cell", "attack", "defence", "config")]
        if not math.isfinite(seconds + memory) or not all(isinstance(name, str) for name in names):
            raise ValueError("what it took, or what it is called")
    except Exception as error:  # whatever a file that is none has
        raise UserMistake(f"{path} is no record of a finished cell: move it away, and the cell runs again") from error
    return dict(record)


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
