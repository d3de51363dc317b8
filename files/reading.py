"""Read files: the only entry point, which turns whatever a parser raises into the one line that a user is shown.

Files come from anywhere: a model or a data set may be made to break its reader, and most are merely odd. No reader
lists the exceptions that its author thought of; it runs inside ``reading``. What a file may cost is bounded before it
is parsed: ``read_bytes`` takes regular files up to a size, and each format has the budgets that its tricks call for.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..contracts import UserMistake
from .printable import printable

MAX_BYTES = 64 << 20
"""Of a file that is held in memory as a whole: tables, lists, manifests, pictures."""

_MAX_PATH_LENGTH = 300
_MAX_REASON_LENGTH = 200
_SIGNATURES = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x1f\x8b": "gzip, so it has to be unpacked",
    b"\x28\xb5\x2f\xfd": "Zstandard, so it has to be unpacked",
    b"BZh": "bzip2, so it has to be unpacked",
    b"\xfd7zXZ": "xz, so it has to be unpacked",
    b"PK\x03\x04": "a zip archive, as torch.save and Excel write",
    b"PAR1": "Parquet",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "PDF",
    b"<!doctype html": "a web page, as servers answer instead of a file",
    b"<html": "a web page, as servers answer instead of a file",
    b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched (git lfs pull)",
}


@contextmanager
def reading(what: str, path: str | os.PathLike[str], passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn every error of the block into one line with the file and the reason.

    A ``UserMistake`` passes as it is, and so do ``KeyboardInterrupt`` and ``SystemExit``.

    Args:
        what: What is read, for the message: ``key list``.
        path: The file or folder.
        passing: Further errors that pass, which the caller handles.

    Raises:
        UserMistake: If the block raises any other exception, which is its cause; or as ``check_ends``.
    """
    check_ends(what, path)
    try:
        yield
    except UserMistake:
        raise
    except passing:
        raise
    except BaseException as error:  # a parser on hostile bytes may raise anything
        # A panic of a library in Rust is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserMistake(f"{what} {shown(path)} cannot be read: {reason(error)}") from error


def check_ends(what: str, path: str | os.PathLike[str]) -> None:
    """Check that something is no pipe and no device, which whoever opens it may wait for without end.

    Args:
        what: What it is, for the message.
        path: The file or folder, if there is one of that name.

    Raises:
        UserMistake: If it is one.
    """
    mode = stat.S_IFREG
    with suppress(OSError, ValueError):
        mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserMistake(f"{what} {shown(path)} is not a regular file; give one")


def read_bytes(path: str | os.PathLike[str], what: str, most: int = MAX_BYTES) -> bytes:
    """Read a whole file.

    Args:
        path: A regular file: neither a pipe nor a device, which may never end.
        what: What it is, for messages.
        most: Bytes that it may have.

    Raises:
        UserMistake: If it is not there, is no regular file, is too large or cannot be read.
    """
    with reading(what, path):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UserMistake(f"{what} {shown(path)} is a folder; give a file")
        if not stat.S_ISREG(status.st_mode):
            raise UserMistake(f"{what} {shown(path)} is not a regular file; give one")
        with open(path, "rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise UserMistake(f"{what} {shown(path)} is larger than {_size(most)}, which no such file should be")
        return content


def read_text(path: str | os.PathLike[str], what: str, most: int = MAX_BYTES, errors: str = "strict") -> str:
    """Read a UTF-8 text file; a byte order mark is left out, line ends stay as they are.

    Args:
        path: A regular file.
        what: What it is, for messages.
        most: Bytes that it may have.
        errors: What becomes of bytes that are not UTF-8: ``surrogateescape`` for names of files.

    Raises:
        UserMistake: As ``read_bytes``, or if it is not UTF-8, or of another format.
    """
    content = read_bytes(path, what, most)
    with reading(what, path):
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            errors = "strict"  # reported as what it is
        elif b"\0" in content and (kind := looks_like(content)):
            raise UserMistake(f"{what} {shown(path)} is no text{kind}")
        return content.decode("utf-8-sig", errors)


def read_lines(path: str | os.PathLike[str], what: str, most: int = MAX_BYTES, errors: str = "strict") -> list[str]:
    """Read the lines of a UTF-8 text file, without white space around them and without blank ones.

    A line ends at LF, CR LF or CR, and at none of the other characters at which Python splits texts: a class name or a
    key may hold one.

    Args:
        path: A regular file.
        what: What it is, for messages.
        most: Bytes that it may have.
        errors: As ``read_text``.

    Raises:
        UserMistake: As ``read_text``.
    """
    lines = read_text(path, what, most, errors).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]


def read_json(path: str | os.PathLike[str], what: str, most: int = MAX_BYTES) -> Any:
    """Read a JSON file.

    Args:
        path: A regular file.
        what: What it is, for messages.
        most: Bytes that it may have.

    Raises:
        UserMistake: As ``read_text``, or if it is not JSON.
    """
    text = read_text(path, what, most)
    with reading(what, path):
        return json.loads(text)


def user_path(path: str | os.PathLike[str], what: str) -> Path:
    """A path as a shell would take it, with ``~`` for the user's home.

    Args:
        path: As the user wrote it.
        what: What it is, for messages.

    Raises:
        UserMistake: If there is no such user, or the system takes no such path.
    """
    with reading(what, path):
        found = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.stat()
        return found


def shown(path: str | os.PathLike[str]) -> str:
    """A path as a message shows it: quoted where it has characters that steer a terminal, cut where it is too long."""
    text = os.fsdecode(path)
    text = text if len(text) <= _MAX_PATH_LENGTH else f"{text[:_MAX_PATH_LENGTH]}… ({len(text)} characters)"
    return text if text.isprintable() else ascii(text)


def looks_like(content: bytes) -> str:
    """What the first bytes of a file are those of, after a semicolon; nothing where they are not known."""
    head = content[:64].lstrip(b" \t\r\n\xef\xbb\xbf").lower()
    kinds = (kind for mark, kind in _SIGNATURES.items() if content.startswith(mark) or head.startswith(mark))
    return f"; it looks like {kind}" if (kind := next(kinds, None)) else ""


def reason(error: BaseException) -> str:
    """What an error says, in one short line that can be printed."""
    if isinstance(error, OSError) and error.strerror:
        known = {FileNotFoundError: "it does not exist", IsADirectoryError: "it is a folder"}
        return known.get(type(error), error.strerror)
    if isinstance(error, UnicodeDecodeError):
        return (
            f"it is not UTF-8 text (byte 0x{error.object[error.start]:02x} at {error.start}){looks_like(error.object)}"
        )
    if isinstance(error, json.JSONDecodeError):
        return (
            f"it is not JSON (line {error.lineno}, column {error.colno}: {error.msg}){looks_like(error.doc.encode())}"
        )
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    said = " ".join(printable(str(error)[: 4 * _MAX_REASON_LENGTH]).split())
    said = said if len(said) <= _MAX_REASON_LENGTH else f"{said[:_MAX_REASON_LENGTH]}…"
    kind = type(error).__name__
    if isinstance(error, KeyError):
        return f"it lacks {said}"
    return f"{said} ({kind})" if said else kind


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >> 20 else f"{count} bytes"
