"""One run at a time in a folder, and one command that writes to it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..contracts import UserMistake
from .reading import shown

_PATIENCE = 12.0
"""Seconds: the data workers of a run that was killed hold its folder until they see that it is gone, after five."""

_held: set[str] = set()


@contextmanager
def held_folder(folder: str | os.PathLike[str], option: str = "--trainer.default_root_dir") -> Iterator[None]:
    """Hold a run folder for the block; it is made where it is missing, and goes again if nothing was written to it.

    The lock is the system's and goes with the process, however that ends. Where a file system has none, nothing is
    held. In a process that holds the folder already, the block is part of that. What a folder holds may be asked for
    within the block alone: before it, another run may be about to write there.

    Args:
        folder: The run folder.
        option: By which the user gave it, for the message.

    Raises:
        UserMistake: If another process has a run there, or it is a file.
        OSError: If it cannot be made.
    """
    name = os.path.realpath(folder)
    if name in _held:
        yield
        return
    made = not os.path.exists(name)
    if not made and not os.path.isdir(name):
        raise UserMistake(f"{shown(folder)} is a file, and no folder: give another {option}")
    descriptor = _locked(name, option)
    _held.add(name)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it holds something
                os.rmdir(name)
        _held.discard(name)
        os.close(descriptor)


@contextmanager
def claimed_folder(wanted: str) -> Iterator[Path]:
    """Make a new folder, which goes again after the block if nothing was written to it, and so does the one around it.

    Args:
        wanted: Its name; it gets a number where another run has taken that.

    Raises:
        OSError: If it cannot be made.
    """
    around = Path(wanted).parent
    there = around.exists()
    folder = _new(Path(wanted))
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds something
            folder.rmdir()
            if not there:
                around.rmdir()


def _new(wanted: Path) -> Path:
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")


def _locked(name: str, option: str) -> int:
    """The descriptor of the folder, locked, which stands under its name."""
    until = time.monotonic() + _PATIENCE
    while True:
        Path(name).mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(name, os.O_RDONLY)
        except FileNotFoundError:  # an empty one that another run has just given up
            continue
        try:
            _lock(descriptor, name, option, until)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(name)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, name: str, option: str, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise UserMistake(
                    f"another run is going on in {shown(name)}: wait for its end, or give another {option}"
                ) from error
            time.sleep(0.2)
        except OSError:  # a file system without locks
            return
