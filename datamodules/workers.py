"""Data workers that outlive the signals by which their parent is asked to end."""

from __future__ import annotations

import os
import signal
import threading

_LOOK_SECONDS = 1.0
_ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def outlive_signals(worker: int) -> None:
    """Leave Ctrl-C, SIGTERM and SIGUSR1 to the parent, which they reach as well; only its own SIGTERM ends a worker.

    A terminal signals all processes in the foreground, and SLURM all of a job. The parent finishes its step then and
    writes a checkpoint; it could not, if a worker were found dead meanwhile. Workers end when it does, however it did:
    one whose pipe is full would wait for ever for a parent that was killed to read it.

    Args:
        worker: The number of the worker, as ``DataLoader`` passes it.
    """
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
        threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    received = None
    while os.getppid() == parent and (received is None or received.si_pid != parent):
        received = signal.sigtimedwait({signal.SIGTERM}, _LOOK_SECONDS)
    os._exit(0)
