"""Check that a command which starts by itself what it needs was started once. Imports nothing that takes time."""

from __future__ import annotations

import os
import re

from ..contracts import UserMistake

_SHELLS = 0xFFFFFFF0
"""Numbers of steps from here on are no steps of tasks: the batch script's, the shell's of ``salloc``."""
_NUMBERS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "SLURM_NTASKS")
"""What Lightning reads as a number, some of it as soon as it is imported."""
_OF_MPI = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE")
"""How many processes ``mpirun`` started: Open MPI's, MVAPICH's, and that of MPICH and Intel."""


def check_numbers() -> None:
    """Check that what launchers leave in the environment are numbers, where libraries read them as such.

    Raises:
        UserMistake: If one is none.
    """
    for name in _NUMBERS:
        if (text := os.environ.get(name)) is not None and re.fullmatch(r"-?\d{1,9}", text, re.ASCII) is None:
            raise UserMistake(
                f"the environment has {name}={text!r:.40}, which launchers set to a number: unset it, or give a number"
            )


def check_one_task(command: str) -> None:
    """Check that a command, which starts by itself what it needs, was started once.

    Args:
        command: Its name.

    Raises:
        UserMistake: If SLURM, torchrun or mpirun started it several times.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ  # as Lightning detects it
    by_slurm = not by_torchrun and is_task()
    count = number("WORLD_SIZE") if by_torchrun else number("SLURM_NTASKS") if by_slurm else started_by_mpi()
    if count is not None and count > 1:
        starter = "torchrun" if by_torchrun else "SLURM" if by_slurm else "mpirun"
        how = "srun --ntasks=1" if by_slurm else f"without {starter}"
        raise UserMistake(
            f"{starter} started {count} tasks of untrigger {command}, which would get in each other's way: run it with "
            f"one task ({how})"
        )


def is_task() -> bool:
    """Whether ``srun`` started this process. A shell under ``--pty`` is a task too, but one of a user's."""
    step = number("SLURM_STEP_ID")
    return step is not None and step < _SHELLS and "SLURM_PTY_PORT" not in os.environ


def started_by_mpi() -> int | None:
    """How many processes ``mpirun`` started; None where it started none."""
    return next((count for name in _OF_MPI if (count := number(name)) is not None), None)


def number(name: str) -> int | None:
    """A whole number that a variable of the environment holds; None where it holds none."""
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
