"""``untrigger bench``: a grid of attacks and defences, each cell an ordinary run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

from ...contracts import UserMistake
from .console import ConsoleProgress
from .grid import Cell, expand
from .runner import BenchStopped, Places, due, run_cells
from .slurm import submit
from .specification import AttackSpec, BenchSpec, DefenceSpec, RunSpec, Settings
from .tables import write_tables

__all__ = ["AttackSpec", "BenchSpec", "DefenceSpec", "RunSpec", "bench"]


def bench(
    spec: BenchSpec,
    out: str = "runs/bench",
    cells: str = "benchmarks/cells",
    jobs: int = 1,
    only: str | list[str] | None = None,
    part: str | None = None,
    rerun: Literal["stale"] | None = None,
    run: bool = True,
    tables: bool = True,
    slurm: str | None = None,
) -> None:
    """Run a grid of attacks and defences, and make its table and its report.

    Each cell is an ordinary run of untrigger fit in a folder of its own. A poisoned model is trained once, and every
    defence starts from its checkpoint. Cells that are finished are skipped, one that was stopped goes on, one that
    fails is told of and does not stop the rest. A cell whose settings changed is another cell. One that other code than
    this has made stays and is marked as stale in the tables, unless it is made anew with --rerun stale.

    OUT/NAME then holds the run folders, results.csv, results.md, results.tex, report.html and figures/; CELLS/NAME a
    small JSON file for each finished cell, to be kept: a cell with one does not run again, on whatever machine. Runs
    and records of a bench with cells_of are in the folders of that one.

    Example:
        untrigger bench --config configs/bench/cifar10_small.yaml --data cifar10

    Args:
        spec: The grid.
        out: Folder for run folders, tables and report.
        cells: Folder for the records of finished cells.
        jobs: How many cells run at a time.
        only: Name of a cell, or a list (as printed by --run false), with * for anything: these alone are run, and what
            they need.
        part: A part that the bench file names: its cells alone are run and tabulated, in OUT/NAME-PART.
        rerun: stale: run cells again that other code than this has made, and those that start from such a one.
        run: Whether to run what is due. Otherwise the cells are listed and the tables made of those that are finished.
        tables: Whether to make the tables and the report.
        slurm: Options of sbatch, as in --slurm="--gres=gpu:1 --time=2:00:00": the cells go out as job arrays instead.

    Raises:
        UserMistake: If the grid is wrong, or a cell has failed.
        SystemExit: If cells have failed, or a signal has asked the bench to end; its cells have then left checkpoints.
    """
    if jobs < 1:
        raise UserMistake(f"--jobs is {jobs}, not at least 1")
    console = Console()
    shared = spec.cells_of or spec.name
    tables_in = Path(out, spec.name if part is None else f"{spec.name}-{part}")
    places = Places(Path(out, shared), Path(cells, shared), tables_in, spec.data)
    grid = _part(expand(spec), spec, part)
    chosen = _chosen(grid, [only] if isinstance(only, str) else only)
    stale = {cell.id for cell in chosen if places.stale(cell)}
    anew = stale if rerun == "stale" else set[str]()
    waiting = due(chosen, places, anew)
    console.print(f"{spec.name}: {len(grid)} cells, {len(waiting)} to run", highlight=False)
    if slurm is not None:
        again = [*([] if rerun is None else ["--rerun", rerun]), *([] if part is None else ["--part", part])]
        _send(spec, waiting, places, slurm, ["--out", out, "--cells", cells, *again], console)
        return
    try:
        failed = _run(grid, waiting, places, jobs, anew, console) if run else _list(grid, waiting, stale, console)
    except BenchStopped as stopped:
        print(f"untrigger: {stopped}: the same command goes on with the cells that were running", file=sys.stderr)
        sys.exit(128 + stopped.number)
    if tables:
        write_tables(grid, places, console)
    if failed:
        print(f"untrigger: {len(failed)} cells failed; their output is in {places.runs}/logs", file=sys.stderr)
        sys.exit(1)


def _run(
    grid: Sequence[Cell], waiting: Sequence[Cell], places: Places, jobs: int, anew: set[str], console: Console
) -> dict[str, str]:
    records = [record for cell in grid if (record := places.finished(cell)) is not None]
    with ConsoleProgress(console, waiting, records, jobs) as progress:
        return run_cells(waiting, places, jobs, progress, anew)


def _list(grid: Sequence[Cell], waiting: Sequence[Cell], stale: set[str], console: Console) -> dict[str, str]:
    ids = {cell.id for cell in waiting}
    for cell in grid:
        state = "to run" if cell.id in ids else "stale " if cell.id in stale else "done  "
        console.print(f"{state}  {cell.name}", markup=False, highlight=False)
    return {}


def _part(grid: Sequence[Cell], spec: BenchSpec, part: str | None) -> list[Cell]:
    """The cells of a part; those that they need, where they are of another, have no rows in its table."""
    if part is None:
        return list(grid)
    if part not in spec.parts:
        there_is = ", ".join(spec.parts) or "none"
        raise UserMistake(f"bench: there is no part {part} of {spec.name}; there is {there_is}")
    names = set(_matching(grid, spec.parts[part]))
    return [cell if cell.name in names else replace(cell, listed=False) for cell in _chosen(grid, sorted(names))]


def _chosen(grid: Sequence[Cell], only: Sequence[str] | None) -> list[Cell]:
    if only is None:
        return list(grid)
    names = set(_matching(grid, only))
    wanted = {cell.id: cell for cell in grid if cell.name in names}
    for cell in reversed(grid):
        if cell.id in wanted:
            wanted.update({before.id: before for before in cell.needs.values()})
    return [cell for cell in grid if cell.id in wanted]


def _matching(grid: Sequence[Cell], patterns: Sequence[str]) -> Iterator[str]:
    """The names of cells that are, or are like, one of these."""
    for pattern in patterns:
        found = [cell.name for cell in grid if fnmatchcase(cell.name, pattern)]
        if not found:
            raise UserMistake(f"bench: there is no cell {pattern}; --run false lists them")
        yield from found


def _send(
    spec: BenchSpec, waiting: Sequence[Cell], places: Places, slurm: str, options: list[str], console: Console
) -> None:
    if not waiting:
        raise UserMistake("bench: every cell is finished; leave --slurm out to make the tables")
    places.tables.mkdir(parents=True, exist_ok=True)
    file = places.tables / "bench.yaml"
    file.write_text(yaml.safe_dump(_plain(spec), sort_keys=False), encoding="utf-8")
    jobs = submit(waiting, file, slurm, options)
    console.print(f"submitted {', '.join(jobs)}; the last one writes {places.tables}/report.html", highlight=False)


def _plain(value: Any) -> Any:
    """A specification as it stands in a bench file."""
    if isinstance(value, Settings):
        return dict(value.content)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
