"""The console output of a bench while its cells run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from ...files.tables import number
from .grid import Cell
from .runner import Progress


class ConsoleProgress(Progress):
    """A bar over the cells with the time left, and a line for each cell that ends.

    Args:
        console: Where to print.
        cells: Those that will run.
        records: Records of cells that ran before: they show how long such a cell takes.
        jobs: How many run at a time.
    """

    def __init__(
        self, console: Console, cells: Sequence[Cell], records: Iterable[dict[str, Any]], jobs: int = 1
    ) -> None:
        self._waiting = {cell.id: cell for cell in cells}
        self._started: dict[str, float] = {}
        self._jobs = jobs
        self._took: dict[str, list[float]] = {}
        for record in records:
            self._took.setdefault(record["config"], []).append(float(record["wall_seconds"]))
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
        self._bar = RichProgress(*columns, TextColumn("[dim]{task.description}"), console=console)
        self._task = self._bar.add_task("", total=len(cells), left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, cell: Cell) -> None:
        """Name it beside the bar."""
        self._started[cell.id] = time.perf_counter()
        self._show()

    def ended(self, cell: Cell, record: dict[str, Any]) -> None:
        """Print its figures."""
        self._took.setdefault(cell.config, []).append(float(record["wall_seconds"]))
        figures = "; ".join(_figures(row) for row in record["results"])
        self._end(cell, f"[green]done[/]    {escape(cell.name)}  {escape(figures)}  {record['wall_seconds']:.0f} s")

    def failed(self, cell: Cell, reason: str) -> None:
        """Print why."""
        self._end(cell, f"[red]failed[/]  {escape(cell.name)}  {escape(reason)}")

    def seconds_left(self) -> float | None:
        """An estimate from cells with the same config; None while no cell has ended."""
        every = [seconds for took in self._took.values() for seconds in took]
        if not every:
            return None
        expected = (statistics.mean(self._took.get(cell.config, every)) for cell in self._waiting.values())
        now = time.perf_counter()
        return max(sum(expected) - sum(now - started for started in self._started.values()), 0.0) / self._jobs

    def _end(self, cell: Cell, line: str) -> None:
        self._waiting.pop(cell.id, None)
        self._started.pop(cell.id, None)
        self._bar.print(line, highlight=False, soft_wrap=True)
        self._bar.advance(self._task)
        self._show()

    def _show(self) -> None:
        names = ", ".join(self._waiting[cell].name for cell in self._started if cell in self._waiting)
        left = self.seconds_left()
        remaining = "" if left is None else f"about {max(round(left / 60), 1)} min left" if self._waiting else ""
        self._bar.update(self._task, description=escape(names), left=remaining)


def _figures(row: dict[str, str]) -> str:
    named = (("CA", "clean_accuracy"), ("ASR", "attack_success_rate"))
    return " ".join(
        f"{name} {100 * value:.1f} %" for name, column in named if (value := number(row[column])) is not None
    )
