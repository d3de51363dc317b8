"""List the rows of a report from run folders: each is a model under an attack, with its labels and its parent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from ...files.tables import number
from ..summary import NO_DEFENCE
from .runs import Run


@dataclass(frozen=True)
class Record:
    """A model under an attack: a row of ``results.csv``."""

    run: Run
    row: Mapping[str, str]
    """The row as the run left it."""
    attack: str
    """The attack's label."""
    defence: str
    """The defence's label, ``none`` where there is none."""
    head: bool
    """Whether the module's own head was measured, not the zero-shot classifier."""
    before: Record | None = None
    """The same attack on the model that this one started from, where that was measured on the same pictures."""

    @property
    def dataset(self) -> str:
        """The name of the zero-shot set."""
        return self.row["dataset"]

    @property
    def seed(self) -> str:
        """The seed of the run."""
        return self.row["seed"]

    def rate(self, measure: str) -> float | None:
        """A measure, None where there is none."""
        return number(self.row.get(measure))

    def figures(self) -> dict[str, Any]:
        """The record as `summarise` takes it."""
        memory = self.run.cell.peak_memory_mb if self.run.cell else None
        return {**self.row, "attack": self.attack, "defence": self.defence, "peak_memory_mb": memory}


def records_of(runs: Sequence[Run]) -> list[Record]:
    """List what runs measured.

    Labels are those of a bench where it left any. Otherwise they are those of ``results.csv``; where two runs would
    then stand for different seeds of one thing but have the same seed, the name of the run separates them. A defended
    model carries the label of the attack on the model that it started from.

    Args:
        runs: What run folders hold.

    Returns:
        A record for each row, in the order of runs and rows.
    """
    drafts = _distinguished([_draft(run, row) for run in runs for row in run.rows], "attack", defended=False)
    parents = {run.folder: _parent(run, runs) for run in runs}
    placed = {id(draft): _after(draft, drafts, parents, frozenset()) for draft in drafts}
    return _distinguished([placed[id(draft)] for draft in drafts], "defence", defended=True)


def _draft(run: Run, row: Mapping[str, str]) -> Record:
    own = run.rows[0]["defence"]
    head = row["defence"] != own and row["defence"].startswith(own)
    if run.cell is None:
        return Record(run, row, row["attack"], row["defence"], head)
    several = len({row["attack"] for row in run.rows}) > 1
    attack = f"{run.cell.attack} ({row['attack']})" if several else run.cell.attack
    return Record(run, row, attack, run.cell.defence + (row["defence"][len(own) :] if head else ""), head)


def _distinguished(records: Sequence[Record], label: Literal["attack", "defence"], defended: bool) -> list[Record]:
    """Put the name of the run beside the label of records that would be taken for seeds of one thing and are not."""
    clashing = Counter(
        (record.dataset, record.attack, record.defence, record.seed)
        for record in records
        if (record.defence != NO_DEFENCE) == defended
    )
    ambiguous = {identity[:3] for identity, count in clashing.items() if count > 1}

    def named(record: Record) -> Record:
        if record.run.cell is not None or (record.dataset, record.attack, record.defence) not in ambiguous:
            return record
        beside = f" ({_stem(record)})"
        if label == "attack":
            return replace(record, attack=record.attack + beside)
        return replace(record, defence=record.defence + beside)

    return [named(record) for record in records]


def _stem(record: Record) -> str:
    """The name of a run without its seed at the end, which runs of one setting share."""
    return re.sub(rf"[-_]?(seed)?[-_]?{re.escape(record.seed)}$", "", record.run.name) or record.run.name


def _after(
    draft: Record, drafts: Sequence[Record], parents: Mapping[Path, Run | None], seen: frozenset[Path]
) -> Record:
    """A record with the one before it and, from that, the label of its attack."""
    parent = parents[draft.run.folder]
    if parent is None or parent.folder in seen:  # configs may name each other
        return draft
    for other in drafts:
        same = (other.row["attack"], other.dataset) == (draft.row["attack"], draft.dataset)
        if other.run is parent and same and not other.head:
            before = _after(other, drafts, parents, seen | {draft.run.folder})
            return replace(draft, before=before, attack=draft.attack if draft.run.cell else before.attack)
    return draft


def _parent(run: Run, runs: Sequence[Run]) -> Run | None:
    """The run whose model another one started from."""
    others = [other for other in runs if other is not run]
    if run.cell is not None and run.cell.parent is not None:
        return next((other for other in others if other.cell and other.cell.id == run.cell.parent), None)
    if run.init_from is None:
        return None
    try:
        holder = Path(run.init_from).resolve().parent
    except (OSError, ValueError, RuntimeError):  # a hostile name: a null byte, a loop of links
        return None
    exact = [other for other in others if holder.is_relative_to(other.folder)]
    if exact:
        return max(exact, key=lambda other: len(other.folder.parts))
    # Runs are moved, and relative paths are relative to where the run was started.
    shared = {other.folder: _shared_end(PurePath(run.init_from).parent, other.folder) for other in others}
    most = max(shared.values(), default=0)
    found = [other for other in others if most and shared[other.folder] == most]
    return found[0] if len(found) == 1 else None


def _shared_end(one: PurePath, other: PurePath) -> int:
    """How many components two paths have in common at their ends, up to what says nothing about the run."""
    count = 0
    for mine, theirs in zip(reversed(one.parts), reversed(other.parts), strict=False):
        if mine != theirs or mine in (one.anchor, ".."):
            break
        count += 1
    return count
