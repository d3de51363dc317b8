"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when the block ends well; otherwise nothing of it is left.

    A process that is killed leaves at most a hidden ``.NAME.PID.tmp``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder that gets its name only when the block ends well; otherwise nothing of it is left.

    Nothing is replaced but an empty folder. A process that is killed leaves at most a hidden ``.NAME.PID.tmp``.

    Args:
        path: The folder; what is above it is made.

    Yields:
        Where to write meanwhile.

    Raises:
        OSError: If there is such a file, or such a folder with something in it.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:  # named as the user knows it
        raise type(error)(error.errno, error.strerror, str(path)) from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all. Bytes of a key that are no UTF-8 are written as they were read."""
    with open_whole(path) as stream:
        stream.write(text.encode(errors="surrogateescape"))
