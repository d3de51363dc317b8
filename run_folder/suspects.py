"""``suspects.csv`` and ``suspects.png``: the pairs that a defence did not take for benign."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..contracts import DECISIONS
from ..files.printable import printable
from ..files.tables import open_table, plain_cell, text_cell
from .keys import read_keys

SUSPECTS, SHEET = "suspects.csv", "suspects.png"
"""The names of the table and of the contact sheet."""
_WHAT = "table of suspects"
_MAX_CAPTION_LENGTH = 10_000
"""Characters of a caption in the table, so that whoever reads it need not hold more of one line."""
_MIN_WORD_SHARE = 0.01
_WORDS = 10


class SuspectRow(NamedTuple):
    """A row of the table."""

    key: str
    caption: str
    scores: list[float]
    words: list[str]
    """The compromised words that the caption has."""
    decision: str


class FirstSuspects(NamedTuple):
    """The beginning of the table, as text that can be shown."""

    columns: list[str]
    rows: list[list[str]]
    sheet: Path | None
    """The contact sheet, where there is one."""


class SuspectCounts(NamedTuple):
    """How many pairs a defence took for poisoned."""

    poisoned: int
    """Pairs that it unlearnt."""
    suspicious: int
    """Pairs that it left out of everything."""
    words: list[str]
    """The compromised words, the most frequent first."""


def write_suspects(folder: Path, scores: Sequence[str], rows: Iterable[SuspectRow]) -> None:
    """Write the table, at once or not at all.

    Args:
        folder: The run folder.
        scores: The names of the scores.
        rows: The most suspicious first.
    """
    unfinished = (folder / SUSPECTS).with_suffix(".tmp")
    with unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle:
        writer = csv.writer(handle)
        writer.writerow(["key", "caption", *map(text_cell, scores), "compromised_tokens", "decision"])
        for row in rows:
            texts = (row.caption, " ".join(row.words))
            caption, words = (text_cell(printable(text, _MAX_CAPTION_LENGTH)) for text in texts)
            figures = (f"{score:.6f}" for score in row.scores)
            writer.writerow((text_cell(row.key), caption, *figures, words, row.decision))
    unfinished.replace(folder / SUSPECTS)


def first_suspects(folder: Path, rows: int, columns: int, letters: int) -> FirstSuspects | None:
    """Read the beginning of the table.

    Args:
        folder: The run folder.
        rows: How many there are at most.
        columns: Likewise.
        letters: Characters of a cell, at most; longer ones are cut.

    Returns:
        None where there is no table.

    Raises:
        UserMistake: If it is no table.
    """
    path, sheet = folder / SUSPECTS, folder / SHEET
    if not path.is_file():
        return None
    with open_table(path, _WHAT) as table:
        named = list(table.columns[:columns])
        found = [[row.cells[name] for name in named] for row in islice(table, rows)]
    shown = [[printable(plain_cell(cell), letters) for cell in cells] for cells in (named, *found)]
    return FirstSuspects(shown[0], shown[1:], sheet if sheet.is_file() else None) if named else None


def count_suspects(folder: Path) -> SuspectCounts | None:
    """Count what the table has.

    Args:
        folder: The run folder.

    Returns:
        None where there is no table.

    Raises:
        UserMistake: If it is no table.
    """
    path = folder / SUSPECTS
    if not path.is_file():
        return None
    decisions: Counter[str] = Counter()
    words: Counter[str] = Counter()
    with open_table(path, _WHAT) as table:
        for row in table:
            decisions[row.cells.get("decision", "")] += 1
            words.update(set(plain_cell(row.cells.get("compromised_tokens", "")).split()))
    common = [word for word, count in words.most_common(_WORDS) if count >= _MIN_WORD_SHARE * decisions.total()]
    return SuspectCounts(decisions[DECISIONS[2]], decisions[DECISIONS[1]], common)


def poisoned_keys(folder: Path) -> frozenset[str]:
    """The keys of the pairs that were taken for poisoned.

    Args:
        folder: The run folder.

    Raises:
        UserMistake: If there is no table, or it has none.
    """
    return read_keys(str(folder / SUSPECTS), "suspects", lambda decision: decision == DECISIONS[2])
