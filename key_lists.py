"""Keys of pairs, from a file that somebody, or a defence, has left."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from .contracts import UserMistake

_QUOTED = ("'=", "'+", "'-", "'@", "'\t", "'\r")
"""How a cell begins that was kept from being read as a formula."""


def read_keys(path: str, option: str, counts: Callable[[str | None], bool]) -> frozenset[str]:
    """Read the keys that a file names.

    Args:
        path: A table with a column ``key``, such as ``suspects.csv``; a ``poison.json``; or a text file with a key a
            line.
        option: What the user gave the path to, for the messages.
        counts: Whether a row of a table counts, given its column ``decision``; None where there is no such column.

    Returns:
        The keys, at least one.

    Raises:
        UserMistake: If there is no such file, or it names no keys.
    """
    try:
        # As it is: a caption may hold any of the many characters at which a text is split into lines.
        text = Path(path).read_bytes().decode("utf-8")
        if path.endswith(".json"):
            return _named(_of_manifest(text), option, path)
        table = csv.DictReader(io.StringIO(text, newline=""))
        if "key" in (table.fieldnames or ()):
            named = {_unquoted(row["key"] or "") for row in table if counts(row.get("decision"))}
        elif path.endswith(".csv"):
            raise UserMistake(f"{option}: {path} has no column key: give a CSV with one, or a text file of keys")
        else:
            named = {line.strip() for line in text.splitlines()}
    except OSError as error:
        raise UserMistake(f"{option}: {path} cannot be read: {error.strerror}") from error
    except UserMistake:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, csv.Error) as error:
        raise UserMistake(f"{option}: {path} is no list of keys ({type(error).__name__})") from error
    return _named(named, option, path)


def _of_manifest(text: str) -> set[str]:
    return {str(key) for plan in json.loads(text)["plans"] for key in plan["keys"]}


def _named(named: set[str], option: str, path: str) -> frozenset[str]:
    keys = frozenset(named - {""})
    if not keys:
        raise UserMistake(f"{option}: {path} names no keys")
    return keys


def _unquoted(key: str) -> str:
    return key[1:] if key.startswith(_QUOTED) else key
