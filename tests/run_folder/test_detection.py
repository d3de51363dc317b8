"""``detection.csv``: scores of several passes in one table, with other people's text as text."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.run_folder.detection import DETECTION, detection_row, read_detection, write_detection


def test_rows_of_other_columns_stand_in_one_table(tmp_path: Path) -> None:
    first = detection_row("score", "Loss", {"roc_auc": 0.123456789, "precision": float("nan")})
    second = detection_row("verify", "=cmd()", {"roc_auc": 1.0, "recall": 0.5})
    write_detection(tmp_path / "new", [first, second])
    with (tmp_path / "new" / DETECTION).open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["after", "score", "roc_auc", "precision", "recall"],
            ["score", "Loss", "0.123457", "", ""],
            ["verify", "'=cmd()", "1", "", "0.5"],
        ]


def test_a_later_table_replaces_it(tmp_path: Path) -> None:
    for rows in ([detection_row("score", name, {"roc_auc": 0.5}) for name in "abc"], []):
        write_detection(tmp_path, rows)
    assert (tmp_path / DETECTION).read_text().strip() == ""


def test_what_ranks_is_read_and_the_decisions_are_not(tmp_path: Path) -> None:
    assert read_detection(tmp_path) == []
    figures = {"roc_auc": 0.5, "average_precision": 0.25, "precision_at_64": 1.0, "recall": 0.75}
    write_detection(tmp_path, [detection_row("score", "=Loss", figures)])
    assert read_detection(tmp_path) == [
        {"score": "=Loss", "roc_auc": "0.5", "average_precision": "0.25", "precision_at_64": "1"}
    ]
    (tmp_path / DETECTION).write_text("score,recall\nLoss,1\n")
    with pytest.raises(UserMistake, match="table of a detection"):
        read_detection(tmp_path)
