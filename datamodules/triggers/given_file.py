"""A file that a user names: read once, and known by its hash from then on."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from ...contracts import UserMistake

MAX_BYTES = 32 * 2**20


def read_file(path: str, what: str) -> bytes:
    """Read a file.

    Args:
        path: The file.
        what: What it is to be, for messages.

    Returns:
        Its content.

    Raises:
        UserMistake: If there is no such file, it is larger than ``MAX_BYTES``, or it cannot be read.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise UserMistake(f"{what} {path!r} is not a file; give the path of one")
        if file.stat().st_size > MAX_BYTES:
            raise UserMistake(f"{what} {path!r} is larger than {MAX_BYTES // 2**20} MiB; make it smaller")
        return file.read_bytes()
    except OSError as error:
        raise UserMistake(f"{what} {path!r} cannot be read: {error.strerror}") from error


def checked_digest(path: str, content: bytes, wanted: str | None, what: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Args:
        path: The file, for messages.
        content: Its content.
        wanted: The SHA-256 that it must have; None takes any.
        what: What it is, for messages.

    Raises:
        UserMistake: If it is another one.
    """
    digest = sha256(content).hexdigest()
    if wanted is not None and wanted != digest:
        raise UserMistake(
            f"{what} {path!r} is not the file that the trigger was made with: its SHA-256 starts with "
            f"{digest[:12]}, not {str(wanted)[:12]}; restore that file"
        )
    return digest
