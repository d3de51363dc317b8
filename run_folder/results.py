"""``results.csv``: what a run measured, a row for each attack."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from itertools import chain
from pathlib import Path

from ..contracts import UserMistake
from ..files.reading import check_ends, reason, shown
from ..files.tables import plain_cell, text_cell
from ..files.writing import write_text

RESULTS = "results.csv"
"""The name of the file."""
HEAD = "-head"
"""What the name of a defence ends with in the rows of a head that it trained on the encoder's features."""
ATTACK_MEASURES = ("attack_success_rate", "clean_target_rate", "triggered_accuracy")
"""What is measured of an attack: the names of the columns, and of what is logged."""
COLUMNS = (
    "dataset",
    "attack",
    "defence",
    "seed",
    "clean_accuracy",
    *ATTACK_MEASURES,
    "seconds",
    "samples_seen",
)
"""The columns that every results file has, first and in this order."""
KS = (1, 5, 10)
"""Of retrieval: how many of the most similar captions or pictures are looked at."""
RETRIEVAL_MEASURES = tuple(f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in KS)
"""What is measured of retrieval, in columns after these."""
MORE_ATTACK_MEASURES = (
    "non_target_triggered_accuracy",
    *(f"{measure}_at_{k}" for measure in ("target_hit", "clean_target_hit") for k in KS),
    *(f"{measure}_at_{k}" for measure in ("text_target_hit", "clean_text_target_hit") for k in KS),
)
"""What is measured of an attack beside these, likewise."""

_IDENTITY = COLUMNS[:4]
_FIGURES = frozenset((*COLUMNS[4:], *RETRIEVAL_MEASURES, *MORE_ATTACK_MEASURES))
_MAX_ROWS = 2_000
"""Of a run, which has one for each attack, or of a table of runs."""
_TEXTS = COLUMNS[:3]
"""Names that are other people's text: in the file they stand as `tables.text_cell` has them, in rows as they are."""


def read_results(folder: Path) -> list[dict[str, str]]:
    """Read the rows of a results file.

    Args:
        folder: The run folder.

    Returns:
        A dictionary by column for each row, with the columns that the file has; empty where there is no such file.

    Raises:
        UserMistake: If the file is not a table that begins with these columns, or has a column twice, or a figure is
            no number.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    check_ends("results file", path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except Exception as error:  # whatever a file that is none makes its reader raise
        raise UserMistake(f"{shown(path)} cannot be read as a CSV file ({reason(error)}): move it away") from error
    # DictReader puts surplus cells under None and fills missing ones with None.
    known = columns[: len(COLUMNS)] == COLUMNS and len(set(columns)) == len(columns) and all(columns)
    if not known or any(None in row or None in row.values() for row in rows):
        raise UserMistake(f"{path} is not a results file: its columns must begin {','.join(COLUMNS)}; move it away")
    if len(rows) > _MAX_ROWS:
        raise UserMistake(
            f"{shown(path)} has {len(rows):,} rows, and no more than {_MAX_ROWS:,} are read: move it away"
        )
    for line, row in enumerate(rows, 1):
        for column in _FIGURES & row.keys():
            if row[column] and not _is_number(row[column]):
                raise UserMistake(f"{shown(path)}: {column} of row {line} is {row[column]!r:.40}, not a number")
    return [row | {column: plain_cell(row[column]) for column in _TEXTS} for row in rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def columns_of(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """The columns of a table of rows: those that every results file has, then what else a row has, as it comes."""
    return list(dict.fromkeys(chain(COLUMNS, *rows)))


def write_results(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a results file, at once or not at all: rows with the columns of all of them, empty where a row has none.

    Args:
        folder: Where to; it is made where it is missing.
        rows: Rows with all of `COLUMNS` and any others.
    """
    table = StringIO()
    writer = csv.DictWriter(table, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **{column: text_cell(row[column]) for column in _TEXTS}} for row in rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RESULTS, table.getvalue())


def add_results(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    """Add rows to a results file, at once or not at all.

    Args:
        folder: The run folder; it is made where it is missing.
        rows: Rows with all of `COLUMNS` and any others. Each replaces the one of an earlier evaluation, which has the
            same dataset, attack, defence and seed.

    Raises:
        UserMistake: As `read_results`.
    """
    new = {tuple(row[column] for column in _IDENTITY): row for row in rows}
    old = {tuple(row[column] for column in _IDENTITY): row for row in read_results(folder)}
    write_results(folder, list((old | new).values()))
