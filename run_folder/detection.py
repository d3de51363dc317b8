"""``detection.csv``: how well the scores of a defence separate poisoned pairs from benign ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import chain
from pathlib import Path

from ..files.reading import reading
from ..files.tables import open_table, plain_cell, text_cell
from ..files.writing import open_whole

DETECTION = "detection.csv"
"""The name of the file."""
_WHAT = "table of a detection"
_RANKINGS = ("roc_auc", "average_precision", "precision_at_")
"""What the columns begin with that say how a score ranks."""


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
    """Write the table, at once or not at all.

    Args:
        folder: The run folder; it is made where it is missing.
        rows: As ``detection_row`` gives them; a cell that one lacks is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(chain(*rows))), restval="")
    writer.writeheader()
    writer.writerows(rows)
    with open_whole(folder / DETECTION) as stream:
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))


def read_detection(folder: Path) -> list[dict[str, str]]:
    """Read how well each score ranks.

    Args:
        folder: The run folder.

    Returns:
        For each row the score's name and, where the table has them, its ROC AUC, average precision and precision at k;
        empty where there is no such file.

    Raises:
        UserMistake: If it is no such table.
    """
    path = folder / DETECTION
    if not path.is_file():
        return []
    with open_table(path, _WHAT) as table, reading(_WHAT, path):
        table.require("score", "roc_auc", "average_precision")
        figures = [name for name in table.columns if name.startswith(_RANKINGS)]
        cells = (row.cells for row in table)
        return [{"score": plain_cell(of["score"]), **{name: of[name] for name in figures}} for of in cells]
