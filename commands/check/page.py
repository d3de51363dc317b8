"""The answer of a check on one page."""

from __future__ import annotations

from pathlib import Path

from ...files import write_text
from ..pages import page_templates
from ..report.pictures import data_uri
from .verdict import Verdict, name_of


def write_page(verdict: Verdict, folder: Path) -> None:
    """Write ``check.html``: one file that needs no network.

    Args:
        verdict: What it tells.
        folder: Where to; with ``suspects.png`` and ``trigger.png``, which go into the page.
    """
    page = (
        page_templates()
        .get_template("check/page.html")
        .render(
            verdict=verdict,
            name=name_of(verdict.model),
            sheet=data_uri(folder / "suspects.png"),
            trigger=data_uri(folder / "trigger.png"),
        )
    )
    write_text(folder / "check.html", page)
