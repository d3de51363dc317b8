"""Read run folders for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...contracts import UserMistake
from ...run_folder.cell import CellLabels, read_labels
from ...run_folder.config import read_config
from ...run_folder.curves import read_curves
from ...run_folder.results import RESULTS, read_results
from ...run_folder.suspects import FirstSuspects, first_suspects

_SUSPECTS_SHOWN, _COLUMNS_SHOWN, _LETTERS_SHOWN = 10, 10, 120


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    name: str
    """The folder's name, with as much of what is above it as distinguishes it from the other runs."""
    folder: Path
    """The folder, resolved."""
    rows: list[dict[str, str]]
    """The rows of ``results.csv``, by column."""
    curves: dict[str, list[tuple[int, float]]]
    """By logged key, (step, value) in the order of steps; empty where no CSV logger wrote."""
    gallery: Path | None
    """The gallery, where there is one."""
    suspects: FirstSuspects | None
    init_from: str | None
    """The weights that the run started from, as its config names them."""
    cell: CellLabels | None
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
            raise UserMistake(f"run folder {folder} does not exist: give folders that hold a {RESULTS}")
    resolved = list(dict.fromkeys(folder.resolve() for folder in folders))
    return [_read_run(folder, name) for folder, name in zip(resolved, _names(resolved), strict=True)]


def _read_run(folder: Path, name: str) -> Run:
    rows = read_results(folder)
    if not rows:
        raise UserMistake(f"run folder {folder} holds no {RESULTS} with a row: give the folder of a finished run")
    gallery, config = folder / "gallery.png", read_config(folder)
    return Run(
        name,
        folder,
        rows,
        read_curves(folder),
        gallery if gallery.is_file() else None,
        first_suspects(folder, _SUSPECTS_SHOWN, _COLUMNS_SHOWN, _LETTERS_SHOWN),
        config.init_from if config else None,
        read_labels(folder),
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
