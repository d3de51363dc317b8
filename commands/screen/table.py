"""The table of screened pictures, as a file and in a few lines on the console."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

from ...files.printable import printable
from ...files.tables import text_cell
from ...files.writing import write_text
from ...lightning_modules.screening import ClassTexts
from .screening import Scored, Verdicts, told

_SHOWN = 5


def write_table(path: Path, scored: Scored, verdicts: Verdicts, texts: ClassTexts | None) -> None:
    """Write a row for each picture, the most suspicious first; those that could not be scored come last."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [name for detector in scored.scores for name in (f"{detector}_score", f"{detector}_p")]
    writer.writerow(["key", "class", *figures, "p", "flagged"])
    for index in np.argsort(verdicts.p, kind="stable").tolist():
        number = scored.classes[index]
        name = "" if texts is None or number < 0 else text_cell(texts.classnames[number])
        cells = [
            f"{value:.6g}"
            for detector in scored.scores
            for value in (scored.scores[detector][index], verdicts.each[detector][index])
        ]
        flagged = "yes" if verdicts.flagged[index] else "no"
        writer.writerow([text_cell(scored.keys[index]), name, *cells, f"{verdicts.p[index]:.6g}", flagged])
    empty = [""] * (len(figures) + 2)
    for key, _ in scored.unreadable:
        writer.writerow([text_cell(key), *empty, "unreadable"])
    write_text(path, text.getvalue())


def print_summary(path: Path, scored: Scored, verdicts: Verdicts, reference: Scored | None, rate: float) -> None:
    """Print how many were flagged, beside how many would be if all were clean, and where the table lies."""
    console, count, flagged = Console(), len(scored.keys), int(verdicts.flagged.sum())

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    for what, seen in (("clean pictures", reference), ("pictures", scored)):
        if seen is not None and seen.unreadable:
            count_of = f"{len(seen.unreadable):,} {what} cannot be read and are not scored"
            say(f"{count_of}; the first: {told(seen.unreadable[0])}")
    if reference is not None:
        most = f"{rate * count:.1f}"
        say(
            f"{flagged:,} of {count:,} pictures flagged; were all of them clean, it would be {most} at most, on average"
        )
    else:
        say(
            f"{flagged:,} of {count:,} pictures flagged, the most suspicious ones: without --clean there is a ranking, "
            "and nothing says whether any picture is triggered"
        )
    for index in np.argsort(verdicts.p, kind="stable")[:_SHOWN].tolist():
        if verdicts.flagged[index]:
            say(f"  {printable(scored.keys[index], 100)}  p {verdicts.p[index]:.2g}")
    say(f"{path}: every picture")
