"""Ctrl-C while modules are imported: one line, as at any other time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAID = "untrigger: interrupted"
STATUS = 128 + signal.SIGINT


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process with one line within the block, in the main thread.

    Libraries turn a ``KeyboardInterrupt`` in the middle of their import into errors of their own. There is nothing to
    tidy up yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"\n{SAID}\n".encode())
    os._exit(STATUS)
