"""Makes the page of results from `benchmarks/cells/`, each time that the site is built (a hook of MkDocs)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from untrigger.commands.bench.tables import found_section, labelled_rows
from untrigger.commands.bench.twins import FLOOR, RECOVERED, beside_twin

CELLS = Path(__file__).parents[2] / "benchmarks" / "cells"
NON_TARGET, ALL_CLASSES = "non_target_triggered_accuracy", "triggered_accuracy"
COLUMNS = {
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "attack success",
    FLOOR: "its floor",
    NON_TARGET: "accuracy under the trigger",
    ALL_CLASSES: "accuracy under the trigger, the target's pictures too",
    RECOVERED: "recovered",
    "image_to_text_recall_at_1": "R@1, image to text",
    "text_to_image_recall_at_1": "R@1, text to image",
}
EARLIER = "UBT"
"""What these defences' names begin with was another method in records that do not tell the code that made them."""
Record = dict[str, Any]


def beside_their_twins(records: Sequence[Record]) -> list[Record]:
    """The records of poisoned and cleaned models, with what their never poisoned twins have under the same triggers."""
    twins = {each["cell"].partition("--")[0]: each for each in records if "twin" in each["needs"]}
    models = [each for each in records if "twin" not in each["needs"] and "--rebound-" not in each["cell"]]
    return [
        each | {"results": beside_twin(each["results"], twins.get(re.split(r"--|-[0-9a-f]{8}$", each["cell"])[0]))}
        for each in models
    ]


def newest(records: Sequence[Record]) -> list[Record]:
    """Of the records of one cell, made with other settings, those of the last day."""
    days: dict[str, str] = {}
    for each in records:
        name = each["cell"].rpartition("-")[0]
        days[name] = max(days.get(name, ""), each["date"])
    return [each for each in records if each["date"] == days[each["cell"].rpartition("-")[0]]]


def table(records: Sequence[Record]) -> str:
    """A grid's table in Markdown: means over the runs of an attack and a defence, in %."""
    rows: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for row in labelled_rows(records):
        rows.setdefault((row["attack"], row["defence"] != "none", row["defence"]), []).append(row)
    every = [run for runs in rows.values() for run in runs]
    shown = {column: name for column, name in COLUMNS.items() if any(run.get(column) for run in every)}
    if NON_TARGET in shown:  # which the oldest grids do not have
        shown.pop(ALL_CLASSES, None)
    lines = [f"| attack | defence | runs | {' | '.join(shown.values())} |", "|---" * (3 + len(shown)) + "|"]
    for (attack, _, defence), runs in sorted(rows.items()):
        figures = []
        for column in shown:
            known = [float(run[column]) for run in runs if run.get(column)]
            figures.append(f"{100 * mean(known):.1f}" if known else "")
        lines.append(f"| {attack} | {defence} | {len(runs)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def section(grid: Path) -> str:
    """A grid's section: when it was made, its table, and which backdoors were found."""
    records = [json.loads(path.read_text()) for path in sorted(grid.glob("*.json"))]
    records = [each | {"defence": each["defence"] or "none"} for each in records]
    known = newest([each for each in records if "code" in each or not each["defence"].startswith(EARLIER)])
    if not known:
        return ""
    days = sorted({each["date"] for each in known})
    made = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    made += "" if all("code" in each for each in known) else ", in part by code that is not recorded (**stale**)"
    return f"## {grid.name}\n\nMade {made}.\n\n{table(beside_their_twins(known))}\n\n{found_section(known)}"


def latest(grid: Path) -> str:
    """When the newest of a grid's records was made."""
    return max(json.loads(path.read_text())["date"] for path in grid.glob("*.json"))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them, the newest first."""
    if "<!-- records -->" not in markdown:
        return markdown
    grids = [folder for folder in sorted(CELLS.iterdir()) if any(folder.glob("*.json"))]
    grids.sort(key=latest, reverse=True)
    return markdown.replace("<!-- records -->", "\n\n".join(map(section, grids)))
