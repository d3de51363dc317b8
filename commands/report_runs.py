"""What a report knows of a run: read from the files that a run leaves in its folder."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..callbacks.results_table import read_results
from ..contracts import UserMistake

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    name: str
    """The folder's name."""
    rows: list[dict[str, str]]
    """The rows of ``results.csv``, by column."""
    curves: dict[str, list[tuple[int, float]]]
    """By logged key, (step, value) in the order of steps; empty where no CSV logger wrote."""
    gallery: bytes | None
    """The gallery as a PNG file, where there is one."""


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Args:
        folder: The folder of a finished run.

    Returns:
        What it holds.

    Raises:
        UserMistake: If there is no such folder, or no results in it.
    """
    if not folder.is_dir():
        raise UserMistake(f"run folder {folder} does not exist: give folders that hold a results.csv")
    rows = read_results(folder / "results.csv")
    if not rows:
        raise UserMistake(f"run folder {folder} holds no results.csv with a row: give the folder of a finished run")
    gallery = folder / "gallery.png"
    picture = gallery.read_bytes() if gallery.is_file() else b""
    return Run(folder.resolve().name, rows, _read_curves(folder), picture if picture.startswith(_PNG) else None)


def _read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    by_step: dict[str, dict[int, float]] = {}
    # A later session of a resumed run logs the steps since its checkpoint again: its values are the ones that count.
    for path in sorted(_logs(folder), key=_session):
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):
                step = _number(row.pop("step", None))
                for key, text in row.items():
                    value = _number(text)
                    if step is not None and value is not None:
                        by_step.setdefault(key, {})[int(step)] = value
    return {key: sorted(values.items()) for key, values in by_step.items()}


def _logs(folder: Path) -> Iterator[Path]:
    """The files of Lightning's CSVLogger, whatever its name and version; not those of runs inside this run."""
    for pattern in ("metrics.csv", "*/metrics.csv", "*/*/metrics.csv"):
        for path in folder.glob(pattern):
            inner = path.relative_to(folder).parents
            if not any((folder / parent / "results.csv").exists() for parent in inner if parent != Path()):
                yield path


def _session(path: Path) -> tuple[int, str]:
    version = re.fullmatch(r"(?:version_|resumed-)(\d+)", path.parent.name)
    return int(version[1]) if version else -1, str(path)


def _number(text: str | list[str] | None) -> float | None:
    try:
        value = float(text)  # type: ignore[arg-type]  # what is not a number is what the except clause is for
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
