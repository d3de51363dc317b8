"""The table of all runs and detectors, as a file and on the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...files.printable import printable
from ...files.tables import text_cell
from ...run_folder.detection import DETECTION, write_detection
from .ranking import SCORES

Ranked = Mapping[str, Sequence[Mapping[str, str]]]
"""By run, how well each detector ranks."""


def write_table(folder: Path, ranked: Ranked) -> None:
    """Write ``detection.csv``: a row for each run and detector. No file where no poisoned pair is known."""
    rows = [{"run": run, **row} for run, of_run in ranked.items() for row in of_run]
    if not rows:
        return
    texts = ({"run": text_cell(row["run"]), "detector": text_cell(row["detector"])} for row in rows)
    write_detection(folder, [row | text for row, text in zip(rows, texts, strict=True)])


def print_table(folder: Path, ranked: Ranked) -> None:
    """Print the ROC AUC of each detector on each run, and where everything lies."""
    console = Console()
    known = {run: {row["detector"]: row["roc_auc"] for row in rows} for run, rows in ranked.items() if rows}
    if known:
        table = Table("detector", title="ROC AUC")
        for run in known:
            table.add_column(Text(printable(run)), justify="right")
        for detector in dict.fromkeys(chain(*known.values())):
            cells = (f"{float(figures[detector]):.3f}" if figures.get(detector) else "" for figures in known.values())
            table.add_row(Text(printable(detector)), *cells)
        console.print(table)
    for run in ranked.keys() - known.keys():
        console.print(
            f"{printable(run)}: which pairs are poisoned is not known, so there are scores alone", markup=False
        )
    console.print(
        f"{folder}: the table in {DETECTION}, every score in {SCORES} of each run", markup=False, soft_wrap=True
    )
