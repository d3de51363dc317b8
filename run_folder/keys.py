"""Keys of pairs, from a file that somebody, or a defence, has left."""

from __future__ import annotations

from collections.abc import Callable

from ..contracts import DECISIONS, UserMistake
from ..files.reading import read_lines, shown
from ..files.tables import SURPLUS, open_table, plain_cell
from .manifest import named_keys


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
    what = f"{option}: key list"
    if path.lower().endswith(".json"):
        named = named_keys(path, what)
    elif path.lower().endswith(".csv"):
        named = _of_table(path, what, counts)
    else:
        lines = read_lines(path, what, errors="surrogateescape")
        named = _of_table(path, what, counts) if _is_table(lines) else set(lines)
    keys = frozenset(named - {""})
    if not keys:
        raise UserMistake(f"{option}: {shown(path)} names no keys")
    return keys


def read_poisoned_keys(path: str, option: str) -> frozenset[str]:
    """As ``read_keys``; of a table with a column ``decision`` those alone that are poisoned."""
    return read_keys(path, option, lambda decision: decision in (None, DECISIONS[-1]))


def _is_table(lines: list[str]) -> bool:
    """Whether lines begin with the header of a table of keys."""
    return bool(lines) and "key" in [cell.strip('"') for cell in lines[0].split(",")]


def _of_table(path: str, what: str, counts: Callable[[str | None], bool]) -> set[str]:
    named = set()
    with open_table(path, what) as table:
        table.require("key")
        decided = "decision" in table.columns
        # Cells after an unquoted comma are in the wrong column; those before it are not.
        sure = table.columns.index("key") == 0 and not decided
        for row in table:
            if row.fault and not (row.fault == SURPLUS and sure):
                raise UserMistake(f"{what} {shown(path)}, line {row.line}: {row.fault}; put such cells in quotes")
            if counts(row.cells["decision"] if decided else None):
                named.add(plain_cell(row.cells["key"]))
    return named
