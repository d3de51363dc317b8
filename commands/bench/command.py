"""``untrigger bench``: a grid of attacks and defences, each cell an ordinary run."""

from __future__ import annotations

import sys
from typing import Literal

from ...contracts import UserMistake
from ...errors.importing import importing
from ..declaration import Command
from .specification import BenchSpec


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
    defence starts from its checkpoint. Cells that are finished are skipped, one that was stopped resumes, one that
    fails is reported, and the rest runs. A cell whose settings changed is another cell. One that other code than
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
    with importing():  # it brings torch and matplotlib along
        from .session import Session

    session = Session(spec, out, cells, [only] if isinstance(only, str) else only, part, rerun)
    if slurm is not None:
        session.submit(slurm)
        return
    failed = session.run(jobs) if run else {}
    if not run:
        session.list_cells()
    if tables:
        session.write_tables()
    if failed:
        print(f"untrigger: {len(failed)} cells failed; their output is in {session.paths.runs}/logs", file=sys.stderr)
        sys.exit(1)


COMMAND = Command(bench, unfolded="spec")
