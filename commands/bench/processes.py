"""The processes of cells: started, waited for, and asked to end when the bench is."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a bench to end."""


class Processes:
    """Runs commands, several at a time from threads, and passes on that this process is asked to end.

    A run that gets SIGTERM writes a checkpoint and ends. It is what is passed on of a Ctrl-C too: a terminal sends that
    to the runs as well, and the second one would not wait for the checkpoint.

    Attributes:
        stopped: The signal that asked this process to end; 0 before. Nothing is started after it.
    """

    def __init__(self) -> None:
        self.stopped = 0
        self._running: set[int] = set()
        self._lock = threading.RLock()  # a signal may arrive while the main thread holds it

    def call(
        self, command: Sequence[str], environment: dict[str, str], output: IO[bytes], kept_open: int
    ) -> tuple[int, float]:
        """Run a command to its end.

        Args:
            command: Its words.
            environment: Its environment.
            output: Where what it prints goes.
            kept_open: A file that it holds open too: its lock stays held when this process is killed.

        Returns:
            Its status, and the peak memory of its largest process in MB.
        """
        with self._lock:
            if self.stopped:
                return 128 + self.stopped, 0.0
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(kept_open,),
            )
            self._running.add(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        with self._lock:
            self._running.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_maxrss / 1024

    @contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Pass signals on within the block, in the main thread; elsewhere the block changes nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in _ASKING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        with self._lock:
            if self.stopped and number == signal.SIGINT:
                return  # from a terminal, it is the runs' too
            self.stopped = number
            for pid in self._running:
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:  # it has just ended
                    continue
