"""Whether two paths lead to one file."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .remote import is_remote, redacted


def real_paths(paths: Iterable[str]) -> list[str]:
    """Where paths lead, through links; a URL is what it is. Each folder is looked at once.

    Args:
        paths: Paths of files, and URLs.
    """
    folders: dict[str, str] = {}

    def real(path: str) -> str:
        if is_remote(path):
            return path
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder or ".")
        return os.path.join(folders[folder], name)

    return [real(path) for path in paths]


def first_in_both(paths: Iterable[str], others: Iterable[str]) -> str | None:
    """The first path or URL that is among others too, whatever it is called there; None where none is."""
    known, given = set(real_paths(others)), list(paths)
    both = (path for path, real in zip(given, real_paths(given), strict=True) if real in known)
    return next(map(redacted, both), None)
