"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .contracts import UserMistake
from .reading import shown

_PATIENCE = 12.0
"""Seconds: the data workers of a run that was killed hold its folder until they see that it is gone, after five."""

_held: set[str] = set()


@contextmanager
def held_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a run folder for the block; it is made where it is missing.

    The lock is the system's and goes with the process, however that ends. Where a file system has none, nothing is
    held. In a process that holds the folder already, the block is part of that.

    Args:
        folder: The run folder.

    Raises:
        UserMistake: If another process has a run there.
        OSError: If it cannot be made.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = os.path.realpath(folder)
    if name in _held:
        yield
        return
    descriptor = os.open(name, os.O_RDONLY)
    try:
        _lock(descriptor, name)
        _held.add(name)
        yield
    finally:
        _held.discard(name)
        os.close(descriptor)


def _lock(descriptor: int, name: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise UserMistake(
                    f"another run is going on in {shown(name)}: wait for its end, or give another "
                    "--trainer.default_root_dir"
                ) from error
            time.sleep(0.2)
        except OSError:  # a file system without locks
            return
