"""The answer of a check on one page, and on the console."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ...files.writing import write_text
from ...run_folder.suspects import SHEET
from ..pages import page_templates
from ..report.pictures import data_uri
from .verdict import Verdict, name_of


def write_page(verdict: Verdict, folder: Path) -> None:
    """Write ``check.html``: one file that needs no network.

    Args:
        verdict: What it says.
        folder: Where to; with ``suspects.png`` and ``trigger.png``, which go into the page.
    """
    page = (
        page_templates()
        .get_template("check/page.html")
        .render(
            verdict=verdict,
            name=name_of(verdict.model),
            sheet=data_uri(folder / SHEET),
            trigger=data_uri(folder / "trigger.png"),
        )
    )
    write_text(folder / "check.html", page)


def print_verdict(verdict: Verdict, folder: Path, console: Console) -> None:
    """Say on the console what the page says.

    Args:
        verdict: What it says.
        folder: Where the page lies.
        console: Where to print.
    """
    console.rule("[bold red]Suspicious" if verdict.suspicious else "[bold green]Nothing suspicious")
    pairs, inversion = verdict.pairs, verdict.inversion
    if pairs is not None:
        # Captions are other people's text: repr keeps escape codes out of a terminal.
        words = ", ".join(f"{word!r:.40}" for word in pairs.words)
        found = f"{pairs.poisoned:,} of {pairs.pairs:,} pairs look poisoned, {pairs.suspicious:,} more are doubtful"
        console.print(escape(found + (f"; compromised words: {words}" if words else "")))
    if inversion is not None:
        size = f"{inversion.p_l1_norm:.1%} of the picture" if inversion.found else "none but the whole picture"
        console.print(f"Smallest trigger that makes all pictures alike: {size}")
    for sentence in verdict.uncertainty:
        console.print(escape(sentence))
    for what, command in verdict.next_steps:
        console.print(escape(what) + (f"\n    {escape(command)}" if command else ""), soft_wrap=True)
    console.print(f"{folder / 'check.html'}   ({verdict.seconds:.0f} s)", soft_wrap=True)
