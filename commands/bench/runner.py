"""Runs the cells of a grid: each once, in an order that has what a cell needs before it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from ...command_line.duplicate_keys import with_last_ones
from ...contracts import UserMistake
from ...files.printable import printable
from ...files.reading import read_json
from ...files.tables import number
from ...files.writing import write_text
from ...run_folder.cell import CELL, read_record, write_record
from ...run_folder.results import read_results
from ...trainer.checkpoints import LAST, last_checkpoint
from .code import code_after, code_of
from .grid import Cell, config_path
from .processes import Processes
from .records import make_record
from .twins import beside_rebound, beside_twin

_ERROR_TAIL = 20_000


class BenchStopped(Exception):
    """A bench was asked to end by a signal.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: the bench and its cells have ended")
        self.number = number


class CellFailed(Exception):
    """A cell whose run ended without results; the message is the last line of its error."""


@dataclass(frozen=True)
class BenchPaths:
    """Where runs and records are.

    Args:
        runs: Folder of the run folders.
        records: Folder of the records.
        tables: Folder of the tables and the report.
        data: What ``${data}`` stands for.
    """

    runs: Path
    records: Path
    tables: Path
    data: str | None

    def run(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.runs / cell.id

    def record(self, cell: Cell) -> Path:
        """The record of a cell."""
        return self.records / f"{cell.id}.json"

    def code(self, cell: Cell) -> Path:
        """Where a cell that has begun says of which code it is."""
        return self.runs / "logs" / f"{cell.id}.code"

    def log(self, cell: Cell) -> Path:
        """What a cell's processes printed."""
        return self.runs / "logs" / f"{cell.id}.log"

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell that is finished, None for one that is not."""
        return read_record(self.record(cell))

    def kept(self, cell: Cell) -> bool:
        """Whether a cell's run is there, and whole: one that is repeated for its checkpoint has a record before."""
        return all((self.run(cell) / name).exists() for name in (LAST, CELL))

    def stale(self, cell: Cell) -> bool:
        """Whether a cell is finished, and by other code than this."""
        record = self.finished(cell)
        return record is not None and record.get("code") != code_of(cell)

    def results(self, cell: Cell) -> list[dict[str, str]]:
        """The rows of a finished cell, with what its twin and its finetuning afterwards say where that is known.

        Those of other code, or with figures of other code, are marked in a column ``stale``.

        Raises:
            UserMistake: If a record is none.
        """
        twin, after = cell.twin, cell.rebound
        beside = [twin, after, twin.rebound if twin is not None else None]
        record, *others = [None if each is None else self.finished(each) for each in (cell, *beside)]
        rows = beside_twin(record["results"] if record else [], others[0])
        rows = beside_rebound(rows, *others[1:]) if after is not None else rows
        stale = any(each is not None and self.stale(each) for each in (cell, *beside))
        return [row | {"stale": "stale"} for row in rows] if stale else rows


class Progress:
    """What a runner reports of its cells; this one reports nothing."""

    def started(self, cell: Cell) -> None:
        """A cell's run has started."""

    def ended(self, cell: Cell, record: dict[str, Any]) -> None:
        """A cell is finished."""

    def failed(self, cell: Cell, reason: str) -> None:
        """A cell has failed, or one that it needs has."""


def due(cells: Sequence[Cell], paths: BenchPaths, anew: Container[str] = ()) -> list[Cell]:
    """The cells that are to be run: those without a record, and those whose checkpoint one of these needs.

    Args:
        cells: Cells of a grid, each after those that it needs.
        paths: Where they are.
        anew: Ids of cells that are to be run although they are finished.

    Returns:
        Them, in the same order.
    """
    chosen: dict[str, Cell] = {}
    for cell in reversed(cells):
        wanted = any(cell.id == before.id for later in chosen.values() for before in later.needs.values())
        missing = wanted and not paths.kept(cell)
        if missing or cell.id in anew or paths.finished(cell) is None:
            chosen[cell.id] = cell
    return [cell for cell in cells if cell.id in chosen]


def run_cells(
    cells: Sequence[Cell], paths: BenchPaths, jobs: int, progress: Progress, anew: Container[str] = ()
) -> dict[str, str]:
    """Run cells, and continue when one fails.

    Args:
        cells: Those that are due, each after those that it needs.
        paths: Where they are.
        jobs: How many run at a time.
        progress: Is called as cells start and end.
        anew: Ids of cells whose earlier run is not to be kept.

    Returns:
        By id, why a cell failed.

    Raises:
        BenchStopped: If this process was asked to end; its cells have ended too, each with a checkpoint.
    """
    waiting, failed, processes = list(cells), dict[str, str](), Processes()
    open_ids = {cell.id for cell in cells}
    with processes.passing_signals_on(), ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[dict[str, Any]], Cell] = {}
        while running or (waiting and not processes.stopped):
            for cell in list(waiting):
                broken = next((before for before in cell.needs.values() if before.id in failed), None)
                if broken is not None:
                    waiting.remove(cell)
                    failed[cell.id] = f"{broken.name} failed"
                    progress.failed(cell, failed[cell.id])
                elif processes.stopped:
                    continue
                elif len(running) < jobs and not open_ids & {before.id for before in cell.needs.values()}:
                    waiting.remove(cell)
                    progress.started(cell)
                    running[pool.submit(_run, cell, paths, jobs, cell.id in anew, processes)] = cell
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                cell = running.pop(future)
                try:
                    progress.ended(cell, future.result())
                    open_ids.discard(cell.id)
                except CellFailed as error:
                    failed[cell.id] = str(error)
                    progress.failed(cell, failed[cell.id])
    if processes.stopped:
        raise BenchStopped(processes.stopped)
    return failed


def fit_arguments(cell: Cell, paths: BenchPaths) -> list[str]:
    """What ``untrigger`` is called with for a cell, with the variables filled in."""
    folders = {variable: str(paths.run(before)) for variable, before in cell.needs.items()}
    if paths.data is not None:
        folders["data"] = paths.data
    filled = [Template(word).substitute(folders) for word in cell.arguments]
    run = str(paths.run(cell))
    # What is changed in every run may be changed again by the attack or the defence.
    return [
        cell.subcommand,
        "--config",
        str(config_path(cell.config)),
        *with_last_ones(filled),
        "--trainer.default_root_dir",
        run,
    ]


def _run(cell: Cell, paths: BenchPaths, jobs: int, anew: bool, processes: Processes) -> dict[str, Any]:
    """Run a cell, or resume it where an earlier session was stopped.

    Raises:
        CellFailed: If it ends without results.
    """
    run, log = paths.run(cell), paths.log(cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    with _held(paths.runs / "logs" / f"{cell.id}.lock") as lock:
        record = paths.finished(cell)  # by another bench, while this one waited
        if record is not None and anew and paths.stale(cell):
            paths.record(cell).unlink()
            shutil.rmtree(run, ignore_errors=True)
        elif record is not None and paths.kept(cell):
            return record
        arguments = fit_arguments(cell, paths)
        if (checkpoint := last_checkpoint(run)) is not None:
            arguments += ["--ckpt_path", checkpoint]
        elif run.exists():
            shutil.rmtree(run)  # stopped before its first checkpoint
        code = _code(cell, paths, resumed=checkpoint is not None)
        # Python would put the working folder first where a module is run, as it is by each rank of a run too.
        environment = os.environ | {"PYTHONSAFEPATH": "1"}
        if jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        started = time.perf_counter()
        with log.open("ab") as output:
            command = [sys.executable, "-m", "untrigger.cli", *arguments]
            status, peak = processes.call(command, environment, output, lock)
        session = {"seconds": time.perf_counter() - started, "peak_memory_mb": peak}
        took = _took(paths.runs / "logs" / f"{cell.id}.took.json", session, resumed=checkpoint is not None)
        if processes.stopped:
            raise CellFailed("stopped; the next bench resumes it")
        if status:
            raise CellFailed(_last_line(log) or f"ended with status {status}")
        try:
            rows = read_results(run)
        except UserMistake as error:
            raise CellFailed(str(error)) from error
        if not rows:
            raise CellFailed(f"left no results; its output is in {log}")
        # Of a session whose bench was killed only the run itself knows.
        fitted = rows if cell.subcommand == "fit" else []  # what is only measured shows what its checkpoint took
        seconds = max([took["seconds"], *(number(row["seconds"]) or 0.0 for row in fitted)])
        record = make_record(cell, rows, run, seconds, took["peak_memory_mb"], jobs, code)
        write_record(record, run / CELL, paths.record(cell))
        return record


def _code(cell: Cell, paths: BenchPaths, resumed: bool) -> str:
    """The digest of the code that a cell began with; empty where that is not known."""
    file = paths.code(cell)
    if not resumed:
        before = [(paths.finished(each) or {}).get("code") for each in cell.needs.values()]
        write_text(file, code_after(cell, [str(code) for code in before]))
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _took(file: Path, session: dict[str, float], resumed: bool) -> dict[str, float]:
    """What a cell took in all its sessions, with this one: kept beside its log."""
    before = {"seconds": 0.0, "peak_memory_mb": 0.0}
    if resumed and file.exists():
        found = read_json(file, "what a cell took")
        before |= {name: number(found.get(name)) or 0.0 for name in before} if isinstance(found, dict) else {}
    took = {
        "seconds": before["seconds"] + session["seconds"],
        "peak_memory_mb": max(before["peak_memory_mb"], session["peak_memory_mb"]),
    }
    write_text(file, json.dumps(took) + "\n")
    return took


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """Hold a file's lock, waiting for whoever has it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _ERROR_TAIL))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((printable(line.strip()) for line in reversed(lines) if line.strip()), "")
