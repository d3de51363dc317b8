"""Makes the page of results from `benchmarks/cells/`, each time that the site is built (a hook of MkDocs)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

CELLS = Path(__file__).parents[2] / "benchmarks" / "cells"
COLUMNS = ("clean_accuracy", "attack_success_rate", "triggered_accuracy")
HEAD = "| attack | defence | runs | clean accuracy | attack success | accuracy under the trigger | code |"
STALE = "**stale**: not recorded"


def table(grid: Path) -> str:
    """A grid's table in Markdown: means over the runs of an attack and a defence, in %, and which code made them."""
    rows: dict[tuple[str, str], list[tuple[dict[str, str], str]]] = {}
    for path in sorted(grid.glob("*.json")):
        record = json.loads(path.read_text())
        for result in record["results"]:
            # As a grid's file names it: settings that differ have names that differ.
            key = (f"{record['attack']}: {result['attack']}", record["defence"] or "none")
            rows.setdefault(key, []).append((result, record.get("code", STALE)))
    lines = [HEAD, "|---|---|---|---|---|---|---|"]
    for (attack, defence), runs in sorted(rows.items()):
        figures = []
        for column in COLUMNS:
            known = [float(result[column]) for result, _ in runs if result.get(column)]
            figures.append(f"{100 * mean(known):.1f}" if known else "")
        code = ", ".join(sorted({made_by for _, made_by in runs}))
        lines.append(f"| {attack} | {defence} | {len(runs)} | {' | '.join(figures)} | {code} |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    if "<!-- records -->" not in markdown:
        return markdown
    grids = sorted(folder for folder in CELLS.iterdir() if folder.is_dir())
    return markdown.replace("<!-- records -->", "\n\n".join(f"## {grid.name}\n\n{table(grid)}" for grid in grids))
