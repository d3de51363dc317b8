"""Puts a method's rows of the reference grid on its page, beside what others published (a hook of MkDocs)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from records import CELLS, Record, beside_their_twins, newest

from untrigger.commands.bench.tables import labelled_rows
from untrigger.commands.bench.twins import CEILING, FLOOR, REBOUND, REBOUND_FLOOR, RECOVERED, beside_rebound
from untrigger.files.tables import number

GRID = "reference"
PUBLISHED = Path(__file__).parents[1] / "methods" / "published.csv"
MARK = re.compile(r"<!-- rows of (.+?) -->")
HEAD = [
    "attack",
    "clean accuracy",
    "attack success (floor)",
    "under the trigger (ceiling)",
    "recovered",
    "rebound (floor)",
    "seconds",
]
Row = Mapping[str, Any]


def with_rebounds(records: Sequence[Record]) -> list[Record]:
    """The records of poisoned and cleaned models, with what twins and finetuning afterwards add to them."""
    rebounds = {each["cell"].partition("--rebound-")[0]: each for each in records if "--rebound-" in each["cell"]}
    found = []
    for each in beside_their_twins(records):
        name = each["cell"].rpartition("-")[0]
        of_twin = rebounds.get(f"{name.partition('--')[0]}--twin")
        found.append(each | {"results": beside_rebound(each["results"], rebounds.get(name), of_twin)})
    return found


def percent(rows: Sequence[Row], column: str) -> str:
    """The mean of what is known, in %."""
    known = [value for row in rows if (value := number(row.get(column))) is not None]
    return f"{100 * mean(known):.1f}" if known else ""


def from_to(before: str, after: str, beside: str = "") -> str:
    """A figure before and after, and the twin's."""
    change = f"{before} → {after}" if before and after else after
    return f"{change} ({beside})" if change and beside else change


def figures(attack: str, before: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """A row of the table: means over the runs of an attack and of what it was before."""

    def changed(column: str, beside: str | None = None) -> str:
        return from_to(percent(before, column), percent(rows, column), percent(rows, beside) if beside else "")

    seeds = len(rows)
    return [
        attack if seeds == 1 else f"{attack}, {seeds} seeds",
        changed("clean_accuracy"),
        changed("attack_success_rate", FLOOR),
        changed("non_target_triggered_accuracy", CEILING),
        percent(rows, RECOVERED),
        from_to("", percent(rows, REBOUND), percent(rows, REBOUND_FLOOR)),
        f"{mean(float(row['seconds']) for row in rows):,.0f}",
    ]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a column without anything is left out."""
    shown = [number for number in range(len(head)) if any(line[number] for line in lines)]
    rows = [[line[number] for number in shown] for line in [head, ["---"] * len(head), *lines]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measured(defence: str) -> str:
    """The rows of a defence, and of its head where it has one; empty where none has run."""
    records = newest([json.loads(path.read_text()) for path in sorted((CELLS / GRID).glob("*-dog-*.json"))])
    rows: dict[str, dict[str, list[Row]]] = {}
    for row in labelled_rows([each | {"defence": each["defence"] or "none"} for each in with_rebounds(records)]):
        rows.setdefault(row["attack"].removesuffix("-dog"), {}).setdefault(row["defence"], []).append(row)
    lines = []
    for attack, defences in rows.items():
        for name, head in ((defence, ""), (f"{defence}-head", ", its head")):
            if name in defences:
                lines.append(figures(f"{attack}{head}", defences.get("none", []), defences[name]))
    return table(HEAD, lines) if lines else ""


def published(defence: str) -> str:
    """What others have published of a defence."""
    with PUBLISHED.open(newline="") as handle:
        known = [row for row in csv.DictReader(handle) if row["defence"] == defence]
    if not known:
        return ""
    head = ["attack", "model and data", "clean accuracy", "attack success", "source"]
    lines = [
        [
            row["attack"],
            row["setting"],
            from_to(row["clean_accuracy_before"], row["clean_accuracy"]),
            from_to(row["attack_success_before"], row["attack_success"]),
            row["source"],
        ]
        for row in known
    ]
    return table(head, lines)


def section(defence: str) -> str:
    """What a method's page shows of it."""
    ours, others = measured(defence), published(defence)
    command = f"untrigger bench --config configs/bench/{GRID}.yaml --data cifar10 --part reporting"
    parts = []
    if ours:
        parts.append(
            f"## What it did\n\nOne target of the reporting half (dog), 20,000 CIFAR-10 pairs, before → after, in %: "
            f"`{command}`. Floor and ceiling are a never poisoned twin's, [the protocol](../protocol.md) says what the "
            f"columns mean; the seconds are those of a loaded machine of two cores.\n\n{ours}\n"
        )
    if others and ours:
        parts.append(
            "Published by others, in %, of other models and other data; what may make the difference stands in "
            f"[everything measured](../measured.md):\n\n{others}\n"
        )
    elif others:
        parts.append(f"## What was published\n\nOf other models and other data, in %:\n\n{others}\n")
    return "\n".join(parts)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    return MARK.sub(lambda match: section(match[1]), markdown)
