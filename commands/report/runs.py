"""What a report knows of a run: read from the files that a run leaves in its folder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...callbacks.results_table import read_results
from ...contracts import UserMistake
from ...printable import printable
from ...reading import reading
from ..curves import read_curves
from .origin import Cell, read_cell, read_init_from

_SUSPECTS_SHOWN, _COLUMNS_SHOWN, _LETTERS_SHOWN = 10, 10, 120


@dataclass(frozen=True)
class Suspects:
    """The pairs that a defence took for poisoned."""

    columns: list[str]
    rows: list[list[str]]
    """The first rows of the file; long cells are cut."""
    sheet: Path | None
    """The contact sheet, where there is one."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    name: str
    """The folder's name, with as much of what is above it as tells it from the other runs."""
    folder: Path
    """The folder, resolved."""
    rows: list[dict[str, str]]
    """The rows of ``results.csv``, by column."""
    curves: dict[str, list[tuple[int, float]]]
    """By logged key, (step, value) in the order of steps; empty where no CSV logger wrote."""
    gallery: Path | None
    """The gallery, where there is one."""
    suspects: Suspects | None
    init_from: str | None
    """The weights that the run started from, as its config names them."""
    cell: Cell | None
    """What a bench says of the run, where one made it."""


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders.

    Args:
        folders: Folders of finished runs; one that is given twice is read once.

    Returns:
        What they hold, in the order given.

    Raises:
        UserMistake: If a folder is missing or holds no results, or a file in it is not what it should be.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserMistake(f"run folder {folder} does not exist: give folders that hold a results.csv")
    resolved = list(dict.fromkeys(folder.resolve() for folder in folders))
    return [_read_run(folder, name) for folder, name in zip(resolved, _names(resolved), strict=True)]


def _read_run(folder: Path, name: str) -> Run:
    rows = read_results(folder / "results.csv")
    if not rows:
        raise UserMistake(f"run folder {folder} holds no results.csv with a row: give the folder of a finished run")
    gallery = folder / "gallery.png"
    return Run(
        name,
        folder,
        rows,
        read_curves(folder),
        gallery if gallery.is_file() else None,
        _read_suspects(folder),
        read_init_from(folder / "config.yaml"),
        read_cell(folder / "cell.json"),
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are all different."""
    names = []
    for folder in folders:
        parts = [part for part in folder.parts if part != folder.anchor]
        depth = 1
        while depth < len(parts) and sum(other.parts[-depth:] == folder.parts[-depth:] for other in folders) > 1:
            depth += 1
        # A file system's name need not be valid text.
        names.append("/".join(parts[-depth:]).encode("utf-8", "replace").decode())
    return names


def _read_suspects(folder: Path) -> Suspects | None:
    path, sheet = folder / "suspects.csv", folder / "suspects.png"
    if not path.is_file():
        return None
    with (
        reading("table of suspects", path),
        path.open(encoding="utf-8", errors="replace", newline="") as file,
    ):
        lines = [
            [printable(cell, _LETTERS_SHOWN) for cell in row[:_COLUMNS_SHOWN]]
            for row in islice(csv.reader(file), _SUSPECTS_SHOWN + 1)
        ]
    if not lines:
        return None
    columns = lines[0]
    rows = [(row + [""] * len(columns))[: len(columns)] for row in lines[1:]]
    return Suspects(columns, rows, sheet if sheet.is_file() else None)
