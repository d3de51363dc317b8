"""Keys of pairs, from a file."""

from __future__ import annotations

import csv
from pathlib import Path

from ...contracts import UserMistake

_QUOTED = ("'=", "'+", "'-", "'@", "'\t", "'\r")


def read_keys(path: str) -> frozenset[str]:
    """Read the keys that a file names.

    Args:
        path: A table with a column ``key``, such as ``suspects.csv``, of which the pairs are taken that it calls
            poisoned where it has a column ``decision``; or a text file with a key a line.

    Returns:
        The keys, at least one.

    Raises:
        UserMistake: If there is no such file, or no key in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        lines = text.splitlines()
        columns = next(csv.reader(lines[:1]), [])
        if "key" in columns:
            rows = csv.DictReader(lines)
            named = {_unquoted(row["key"]) for row in rows if row.get("decision", "poisoned") == "poisoned"}
        else:
            named = {line.strip() for line in lines}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserMistake(f"model.given: {path} cannot be read ({type(error).__name__})") from error
    keys = frozenset(named - {""})
    if not keys:
        raise UserMistake(f"model.given: {path} names no pair; it is a table with a column key, or has a key a line")
    return keys


def _unquoted(key: str) -> str:
    """A key without the quote that keeps a spreadsheet from taking it for a formula."""
    return key[1:] if key.startswith(_QUOTED) else key
