"""Sends the cells of a grid out as SLURM job arrays."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ...contracts import UserMistake
from .grid import Cell


def submit(cells: Sequence[Cell], spec_file: Path, options: str, bench_options: Sequence[str]) -> list[str]:
    """Submit an array for the cells that need none before them, one for those that need only these, and so on.

    A last job makes the tables and the report. An array starts when the one before has ended, however its cells did.

    Args:
        cells: Those that are due, each after those that it needs.
        spec_file: The bench file that each job reads. Lists of cells are written beside it.
        options: Options of ``sbatch``, for every job.
        bench_options: Further options of ``untrigger bench``.

    Returns:
        The ids of the jobs; the last one makes the report.

    Raises:
        UserMistake: If ``sbatch`` is missing or refuses.
    """
    jobs: list[str] = []
    # -P: a module that is run has the working folder before everything else otherwise.
    bench = [sys.executable, "-P", "-m", "untrigger.cli", "bench", "--config", str(spec_file), *bench_options]
    logs = spec_file.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for number, level in enumerate(_levels(cells)):
        listing = spec_file.with_name(f"array-{number}.txt")
        listing.write_text("".join(f"{cell.name}\n" for cell in level), encoding="utf-8")
        pick = f'"$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(listing))})"'
        # One task writes no tables: many at once would write the same files.
        script = f"{shlex.join(bench)} --tables false --only {pick}"
        array = [f"--array=0-{len(level) - 1}", f"--output={logs}/slurm-%A_%a.log"]
        jobs.append(_sbatch([*shlex.split(options), *array, *_after(jobs)], script))
    report = [*shlex.split(options), f"--output={logs}/slurm-%j.log", *_after(jobs)]
    jobs.append(_sbatch(report, f"{shlex.join(bench)} --run false"))
    return jobs


def _levels(cells: Sequence[Cell]) -> list[list[Cell]]:
    depth: dict[str, int] = {}
    for cell in cells:
        depth[cell.id] = 1 + max((depth.get(before.id, -1) for before in cell.needs.values()), default=-1)
    return [[cell for cell in cells if depth[cell.id] == level] for level in sorted(set(depth.values()))]


def _after(jobs: list[str]) -> list[str]:
    return [f"--dependency=afterany:{jobs[-1]}"] if jobs else []


def _sbatch(options: list[str], script: str) -> str:
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *options],
            input=f"#!/bin/sh\n{script}\n",
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise UserMistake(
            "bench: there is no sbatch here; leave --slurm out to run the cells on this machine"
        ) from error
    except subprocess.CalledProcessError as error:
        raise UserMistake(f"bench: sbatch refused: {' '.join(error.stderr.split())}") from error
    return done.stdout.strip().split(";")[0]
