"""``similarities.csv``: the similarity of every pair, and what else was found of it, by key."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..files.tables import open_table, plain_cell, text_cell

SIMILARITIES = "similarities.csv"
"""The name of the file, where one process wrote it."""


class SimilarityTable:
    """A table that is written as the rows come, under a temporary name until it is whole.

    Args:
        folder: The run folder; it is made where it is missing.
        part: The number of this process where several write a part each: ``similarities-PART.csv``.
    """

    def __init__(self, folder: Path, part: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(SIMILARITIES)
        self._target = folder / (name if part is None else f"{name.stem}-{part}{name.suffix}")
        self._unfinished = self._target.with_suffix(".tmp")
        self._file = self._unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer = csv.writer(self._file)
        self._headed = False

    def add(self, keys: Sequence[str], scores: Mapping[str, Sequence[float]]) -> None:
        """Add rows.

        Args:
            keys: N keys.
            scores: By name, N each; the same names each time.
        """
        if not self._headed:
            self._writer.writerow(["key", *map(text_cell, scores)])
            self._headed = True
        cells = ([f"{score:.6f}" for score in column] for column in scores.values())
        self._writer.writerows(zip(map(text_cell, keys), *cells, strict=True))

    def finish(self) -> None:
        """Give the file its name; an earlier one is replaced."""
        self._file.close()
        self._unfinished.replace(self._target)

    def discard(self) -> None:
        """Leave no half file."""
        self._file.close()
        self._unfinished.unlink()


def read_similarities(folder: Path, names: Sequence[str]) -> tuple[list[str], dict[str, npt.NDArray[np.float32]]]:
    """Read scores of every pair.

    Args:
        folder: The run folder.
        names: The names of the scores.

    Returns:
        N keys and, by name, ``(N,)`` scores.

    Raises:
        UserMistake: If there is no such table, or it lacks a score.
    """
    keys: list[str] = []
    columns = {name: array("f") for name in names}
    with open_table(folder / SIMILARITIES, "similarities") as rows:
        rows.require("key", *columns)
        for row in rows:
            keys.append(plain_cell(row.cells["key"]))
            for name, column in columns.items():
                column.append(float(row.cells[name]))
    return keys, {name: np.array(column) for name, column in columns.items()}
