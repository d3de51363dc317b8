"""Check that a command which starts by itself what it needs was started once. Imports nothing that takes time."""

from __future__ import annotations

import os

from ..contracts import UserMistake

_SHELLS = 0xFFFFFFF0
"""Numbers of steps from here on are no steps of tasks: the batch script's, the shell's of ``salloc``."""


def check_one_task(command: str) -> None:
    """Check that a command, which starts by itself what it needs, was started once.

    Args:
        command: Its name.

    Raises:
        UserMistake: If SLURM or torchrun started it several times.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ  # as Lightning detects it
    count = number("WORLD_SIZE") if by_torchrun else number("SLURM_NTASKS") if is_task() else None
    if count is not None and count > 1:
        starter, how = ("torchrun", "without torchrun") if by_torchrun else ("SLURM", "srun --ntasks=1")
        raise UserMistake(
            f"{starter} started {count} tasks of untrigger {command}, which would get in each other's way: run it with "
            f"one task ({how})"
        )


def is_task() -> bool:
    """Whether ``srun`` started this process. A shell under ``--pty`` is a task too, but one of a user's."""
    step = number("SLURM_STEP_ID")
    return step is not None and step < _SHELLS and "SLURM_PTY_PORT" not in os.environ


def number(name: str) -> int | None:
    """A whole number that a variable of the environment holds; None where it holds none."""
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
