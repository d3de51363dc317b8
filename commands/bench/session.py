"""A call of ``untrigger bench``: its cells, which of them are due, and what is done with these."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from rich.console import Console

from ...command_line.number_formats import slow_precision
from ...contracts import UserMistake
from .console import ConsoleProgress
from .grid import Cell, expand, read_config
from .runner import BenchPaths, BenchStopped, due, run_cells
from .same_data import told_data
from .selection import chosen_cells, part_of
from .slurm import submit
from .specification import BenchSpec, Settings
from .tables import write_tables


class Session:
    """The cells of a call, and where their runs and records are. Says how many are due.

    Args:
        spec: See `command.bench`, as all others.
        out: See there.
        cells: See there.
        only: See there.
        part: See there.
        rerun: See there.

    Raises:
        UserMistake: If the grid is wrong, or has no such cell or part.
    """

    def __init__(
        self,
        spec: BenchSpec,
        out: str,
        cells: str,
        only: Sequence[str] | None,
        part: str | None,
        rerun: Literal["stale"] | None,
    ) -> None:
        shared = spec.cells_of or spec.name
        self._spec, self._console = spec, Console()
        tables = Path(out, spec.name if part is None else f"{spec.name}-{part}")
        self.paths = BenchPaths(Path(out, shared), Path(cells, shared), tables, spec.data)
        self._grid = part_of(expand(spec), spec, part)
        self._chosen = chosen_cells(self._grid, only)
        self._stale = {cell.id for cell in self._chosen if self.paths.stale(cell)}
        self._anew = self._stale if rerun == "stale" else set[str]()
        self._due = due(self._chosen, self.paths, self._anew)
        again = [*([] if rerun is None else ["--rerun", rerun]), *([] if part is None else ["--part", part])]
        self._options = ["--out", out, "--cells", cells, *again]
        self._console.print(f"{spec.name}: {len(self._grid)} cells, {len(self._due)} to run", highlight=False)
        if (line := told_data(self.paths.runs, spec.data, begins=False)) is not None:
            self._console.print(line, markup=False, highlight=False)

    def run(self, jobs: int) -> dict[str, str]:
        """Run what is due.

        Args:
            jobs: How many cells run at a time.

        Returns:
            The cells that failed, with why.

        Raises:
            SystemExit: If a signal asked for it.
        """
        if self._due:
            told_data(self.paths.runs, self._spec.data, begins=True)
        for line in slow_precisions(self._due):
            self._console.print(line, markup=False, highlight=False)
        records = [record for cell in self._grid if (record := self.paths.finished(cell)) is not None]
        try:
            with ConsoleProgress(self._console, self._due, records, jobs) as progress:
                return run_cells(self._due, self.paths, jobs, progress, self._anew)
        except BenchStopped as stopped:
            print(f"untrigger: {stopped}: the same command resumes the cells that were running", file=sys.stderr)
            sys.exit(128 + stopped.number)

    def list_cells(self) -> None:
        """Print each chosen cell with its state."""
        ids = {cell.id for cell in self._due}
        for cell in self._chosen:
            state = "to run" if cell.id in ids else "stale " if cell.id in self._stale else "done  "
            self._console.print(f"{state}  {cell.name}", markup=False, highlight=False)

    def submit(self, slurm: str) -> None:
        """Send what is due out as job arrays.

        Args:
            slurm: Options of sbatch.

        Raises:
            UserMistake: If nothing is due, or SLURM refuses.
        """
        if not self._due:
            raise UserMistake("bench: every cell is finished; leave --slurm out to make the tables")
        tables = self.paths.tables
        tables.mkdir(parents=True, exist_ok=True)
        file = tables / "bench.yaml"
        file.write_text(yaml.safe_dump(_plain(self._spec), sort_keys=False), encoding="utf-8")
        jobs = submit(self._due, file, slurm, self._options)
        self._console.print(f"submitted {', '.join(jobs)}; the last one writes {tables}/report.html", highlight=False)

    def write_tables(self) -> None:
        """Make the tables and the report of the cells that are finished."""
        write_tables(self._grid, self.paths, self._console)


def slow_precisions(cells: Sequence[Cell]) -> set[str]:
    """What a user should know before runs in a number format that this processor only emulates, which take far longer.

    Args:
        cells: What is to run.
    """
    if torch.cuda.is_available():
        return set()
    asked = {precision_of(cell) for cell in cells}
    lines = (slow_precision(each, "--every.trainer '{precision: 32-true}'") for each in asked)
    return {line for line in lines if line is not None}


def precision_of(cell: Cell) -> str:
    """The precision of a cell's run, as ``Trainer(precision=...)`` has it."""
    flag = "--trainer.precision"
    if flag in cell.arguments:
        return cell.arguments[cell.arguments.index(flag) + 1]
    return str((read_config(cell.config).get("trainer") or {}).get("precision", "32-true"))


def _plain(value: Any) -> Any:
    """A specification as it stands in a bench file."""
    if isinstance(value, Settings):
        return dict(value.content)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value
