"""Signals that ask a run to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from .slurm import in_slurm_job, requeue


class StopSignals:
    """Notes that the process was asked to end, so that it can do so between two steps, with a checkpoint.

    They are Ctrl-C, SIGTERM and, in a job of SLURM, SIGUSR1, which announces the time limit: the job is put back into
    the queue then. A second Ctrl-C ends at once. Lightning's own handlers write the checkpoint wherever the signal
    arrives, in the middle of a step, on each rank in another one, and start collectives there.

    Attributes:
        received: The signal; 0 before.
        patient: Whether somebody will look at ``received`` soon. If not, a signal ends the process at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self.patient = False

    def install(self, patient: bool) -> None:
        """Install the signal handlers, in the main thread. Lightning restores its own at the end of the run."""
        self.patient = patient
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        for number in [*numbers, signal.SIGUSR1] if in_slurm_job() else numbers:
            signal.signal(number, self._note)

    def leave(self, number: int) -> None:
        """End the process, as a signal asked for.

        Args:
            number: Number of the signal.

        Raises:
            SystemExit: Always: with 128 and the signal's number, as shells have it, and with 0 where the job is in the
                queue again.
        """
        self.patient = False
        if threading.current_thread() is threading.main_thread():
            # SLURM sends it to a job that it puts back into the queue; this one is ending already.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        status = 128 + number
        if rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning sets it
            # Whoever started the ranks takes the status of the first; a failure of another one would kill it.
            status = 0
        elif number == signal.SIGUSR1 and requeue():
            rank_zero_info("The job is in SLURM's queue again, and will resume from its checkpoint")
            status = 0
        sys.exit(status)

    def _note(self, number: int, frame: Any) -> None:
        before, self.received = self.received, number
        if not self.patient or before == number == signal.SIGINT:
            self.leave(number)
        # srun passes on what SLURM has sent already.
        if before != number and not rank_zero_only.rank:  # type: ignore[attr-defined]  # Lightning sets it
            name = signal.Signals(number).name
            words = f"\n{name}: the run ends after this step or validation, with a checkpoint; Ctrl-C again: at once\n"
            os.write(sys.stderr.fileno(), words.encode())  # print may be what was interrupted
