"""Read CSV tables row by row: the only reader of tables, with a warning for each row that may be misread.

``csv`` forgives: it drops quotes in the middle of a cell, swallows rows between two stray quotes, and hands out surplus
cells. Each of these changes what a caption or a key is, so it is reported instead.
"""

from __future__ import annotations

import csv
import json
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TextIO

from ..contracts import UserMistake
from .reading import looks_like, reading, shown

SURPLUS = "more cells than columns, as of an unquoted delimiter"
QUOTES = "quotes inside a cell"

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001  # wide ones count too
"""How a cell begins that a spreadsheet reads as a formula, blanks left out."""
_CONTROL = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode's categories of what steers a terminal or turns the direction of a line."""
_DELIMITERS = {"\t": "tab", ";": "semicolon", "|": "bar", ",": "comma"}
_MAX_LINE_LENGTH = 1 << 20
"""Characters, so that a file without line ends is not held as one."""


class Row(NamedTuple):
    """A row of a table."""

    line: int
    """The line that it ends on, from 1."""
    cells: dict[str, str]
    """By column; a cell that is missing is empty."""
    fault: str
    """Why its cells may not be what was meant: ``SURPLUS`` or ``QUOTES``; empty where all is well."""
    lines: int
    """Number of lines that it stands on."""
    width: int
    """Number of cells that it has; those of the columns after them are empty."""


class Table:
    """A CSV file with a header, read as it is iterated over.

    A byte order mark is left out. Bytes that are not UTF-8 stand as surrogates (``surrogateescape``): they are one
    row's fault, not the table's. Blank lines are passed over.

    Args:
        stream: The file.
        path: Its path, for messages.
        what: What it is, for messages.
        delimiter: One character.

    Attributes:
        columns: The names in the header.

    Raises:
        UserMistake: If the header cannot be read or names a column twice; while iterating, if a quote is never closed
            or a line has no end.
    """

    def __init__(self, stream: TextIO, path: str, what: str, delimiter: str) -> None:
        self._path, self._what = path, what
        self._reader = csv.reader(_lines(stream, path, what), delimiter=delimiter, strict=True)
        try:
            self.columns: Sequence[str] = next(self._reader, [])
        except csv.Error as error:
            raise self._unreadable(0, error) from error
        twice = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise UserMistake(f"{what} {path} has two columns {twice!r:.80}; name each once")

    def __iter__(self) -> Iterator[Row]:
        width = len(self.columns)
        # What a header ends with by one delimiter too many, as spreadsheets write it; pandas' index is in front.
        named = max((number for number, name in enumerate(self.columns, 1) if name.strip()), default=0)
        while True:
            before = self._reader.line_num
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                after = self._reader.line_num
                if after - before != 1 or "end of data" in str(error) or "field larger" in str(error):
                    raise self._unreadable(before, error) from error
                yield Row(after, dict.fromkeys(self.columns, ""), QUOTES, 1, width)
                continue
            if cells:
                surplus = SURPLUS if len(cells) > width or any(cell.strip() for cell in cells[named:]) else ""
                filled = [*cells, *[""] * (width - len(cells))]
                line = self._reader.line_num
                fault = surplus or (QUOTES if any(map(_is_quoted, cells)) else "")
                yield Row(line, dict(zip(self.columns, filled, strict=False)), fault, line - before, len(cells))

    def require(self, *columns: str) -> None:
        """Check that there are these columns.

        Raises:
            UserMistake: If one is missing.
        """
        for column in columns:
            if column not in self.columns:
                found, alone = str(list(self.columns)), "".join(self.columns[:1]) if len(self.columns) == 1 else ""
                other = next((name for sign, name in _DELIMITERS.items() if sign in alone), "")
                advice = f"; its cells seem to be parted by a {other}" if other else ""
                raise UserMistake(
                    f"{self._what} {self._path} has no column {column!r}: its columns are {found:.300}{advice}"
                )

    def _unreadable(self, line: int, error: csv.Error) -> UserMistake:
        advice = "look for a quote that is not closed, or for quotes inside a cell"
        return UserMistake(f"{self._what} {self._path} is not CSV after line {line} ({error}): {advice}")


@contextmanager
def open_table(path: str | os.PathLike[str], what: str, delimiter: str = ",") -> Iterator[Table]:
    """Open a table; whatever goes wrong with it inside the block is one line.

    Args:
        path: A regular file.
        what: What it is, for messages.
        delimiter: One character.

    Yields:
        The table.

    Raises:
        UserMistake: If it cannot be read, or as ``Table``.
    """
    if not os.path.isfile(path):
        kind = "is not a file" if os.path.exists(path) else "does not exist, so it is not a file"
        raise UserMistake(f"{what} {shown(path)} {kind}: give a table with a header")
    with reading(what, path):
        with open(path, "rb") as start:
            other = looks_like(start.read(64))
        if other:
            raise UserMistake(f"{what} {shown(path)} is no table{other}")
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            yield Table(stream, shown(path), what, delimiter)


def _is_quoted(cell: str) -> bool:
    """Whether a cell is in quotes after a blank, which CSV takes for part of the text."""
    text = cell.strip()
    return cell[:1].isspace() and len(text) > 1 and text[0] == text[-1] == '"'


def _lines(stream: TextIO, path: str, what: str) -> Iterator[str]:
    while line := stream.readline(_MAX_LINE_LENGTH):
        if len(line) == _MAX_LINE_LENGTH:
            raise UserMistake(f"{what} {path} has a line of more than {_MAX_LINE_LENGTH:,} characters: it is no table")
        yield line


def text_cell(text: str) -> str:
    """Keep a spreadsheet from reading a text as a formula, and a terminal from being steered by it.

    What may be a formula gets a quote in front. What has control or invisible characters follows a quote as a
    JSON string. ``plain_cell`` takes both off again; no two texts become one.
    """
    if text.startswith("'\"") or _has_controls(text):
        return f"'{json.dumps(text)}"
    return f"'{text}" if _is_formula(text) else text


def plain_cell(cell: str) -> str:
    """What ``text_cell`` made a cell of."""
    if cell.startswith("'\""):
        with suppress(ValueError):
            return str(json.loads(cell[1:]))
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def number(value: Any) -> float | None:
    """A finite number, given as one or as text; None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _is_formula(text: str) -> bool:
    return text.lstrip("' ").startswith(_FORMULA)


def _has_controls(text: str) -> bool:
    """Also bytes that are no UTF-8, where some terminals take them for control characters."""
    return not text.isprintable() and any(
        unicodedata.category(letter) in _CONTROL or "\udc80" <= letter < "\udca0" for letter in text
    )
