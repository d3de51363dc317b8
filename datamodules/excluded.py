"""Pairs that are to be left out of training, by key: those of a manifest, of a table of suspects, or of a list."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from ..contracts import UserMistake
from .poisoning import read_manifest
from .shards import ShardSet

log = logging.getLogger(__name__)

_BENIGN = "benign"
"""What the column ``decision`` of a table of suspects says of a pair that was looked at and acquitted."""
_QUOTED = ("'=", "'+", "'-", "'@", "'\t", "'\r")
"""How a cell begins that was kept from being read as a formula."""


def read_keys(path: str) -> set[str]:
    """Read the keys that a file names.

    Args:
        path: A ``poison.json``, a ``.csv`` with a column ``key`` (without the rows whose column ``decision``, if there
            is one, says ``benign``), or any other text file with a key a line.

    Returns:
        The keys, at least one.

    Raises:
        UserMistake: If there is no such file, or it names no keys.
    """
    file = Path(path)
    try:
        if file.suffix == ".json":
            keys = {key for chosen in read_manifest(file).keys for key in chosen}
        elif file.suffix == ".csv":
            keys = _of_table(file)
        else:
            keys = {line.strip() for line in file.read_text(encoding="utf-8").splitlines()} - {""}
    except UserMistake as error:
        raise UserMistake(f"data.exclude: {error}") from error
    except OSError as error:
        raise UserMistake(f"data.exclude: {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserMistake(f"data.exclude: {path} is no list of keys ({error})") from error
    if not keys:
        raise UserMistake(f"data.exclude: {path} names no keys")
    return keys


def leave_out(shards: ShardSet, keys: set[str], path: str) -> ShardSet:
    """The same shards without the pairs with these keys.

    Args:
        shards: The pairs.
        keys: Those to leave out.
        path: The file that names them, for the messages.

    Raises:
        UserMistake: If none of the keys is in the shards.
    """
    missing = len(keys) - len(shards.locate(keys))
    if missing == len(keys):
        raise UserMistake(f"data.exclude: none of the {len(keys):,} keys that {path} names is in these shards")
    if missing:
        log.warning("%d of the %d keys that %s names are not in these shards", missing, len(keys), path)
    return shards.without(keys)


def _of_table(file: Path) -> set[str]:
    with file.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        if "key" not in (reader.fieldnames or ()):
            raise UserMistake(f"{file} has no column key: give a CSV with one, a poison.json or a text file of keys")
        cells = [row["key"] or "" for row in reader if row.get("decision") != _BENIGN]
    return {cell[1:] if cell.startswith(_QUOTED) else cell for cell in cells} - {""}
