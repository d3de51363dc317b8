"""``detection.csv``: how well the scores of a defence separate poisoned pairs from benign ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from ..tables import text_cell

DETECTION = "detection.csv"
"""The name of the file."""


def detection_row(after: str, score: str, figures: Mapping[str, float]) -> dict[str, str]:
    """A row of the table, as text.

    Args:
        after: What the defence had just done.
        score: The name of the score.
        figures: By column; the cell of what is NaN is empty.
    """
    cells = {name: "" if math.isnan(figure) else f"{figure:.6g}" for name, figure in figures.items()}
    return {"after": text_cell(after), "score": text_cell(score), **cells}


def write_detection(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write the table, over one that is there.

    Args:
        folder: The run folder; it is made where it is missing.
        rows: As ``detection_row`` gives them; a cell that one lacks is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns: Iterable[str] = dict.fromkeys(chain(*rows))
    with (folder / DETECTION).open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle:
        writer = csv.DictWriter(handle, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
