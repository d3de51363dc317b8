"""Mean and spread over seeds: the one aggregation of every table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ..contracts import NO_DEFENCE as NO_DEFENCE
from ..files.tables import number

MEASURES = (
    "clean_accuracy",
    "attack_success_rate",
    "clean_target_rate",
    "triggered_accuracy",
    "non_target_triggered_accuracy",
    "attack_success_floor",
    "triggered_accuracy_ceiling",
    "recovered",
    "rebound",
    "rebound_floor",
    "seconds",
    "samples_seen",
    "peak_memory_mb",
    "alarm",
    "roc_auc",
    "precision",
    "reported_recall",
)
"""What is aggregated: rates in [0, 1], those of the never poisoned twin among them; what is recovered as a share of the
twin's; the highest attack success in a finetuning afterwards; wall time, training samples, peak memory in megabytes; of
a defence that names suspects whether it found any, the ROC AUC of their score, the precision of those that it unlearnt,
and which share of the poison it reported."""

_NO_MEASURES = {"dataset", "attack", "defence", "seed", "stale"}


class Figure(NamedTuple):
    """A measure over seeds."""

    mean: float
    spread: float | None
    """Sample standard deviation, with n - 1; None of a single value, which has no spread."""
    n: int
    """Values that were there."""


@dataclass(frozen=True)
class Summary:
    """The records of one attack and one defence on one data set."""

    dataset: str
    attack: str
    defence: str
    seeds: tuple[str, ...]
    """Seeds in the order of the records, each once."""
    figures: Mapping[str, Figure]
    """By measure; one that no record has is missing."""

    @property
    def defended(self) -> bool:
        """Whether there is a defence."""
        return self.defence != NO_DEFENCE

    def mean(self, measure: str) -> float | None:
        """The mean of a measure; None where no record has it."""
        return self.figures[measure].mean if measure in self.figures else None


def summarise(records: Iterable[Mapping[str, Any]]) -> list[Summary]:
    """Aggregate records over seeds.

    Args:
        records: Each with ``dataset``, ``attack``, ``defence``, ``seed`` and any of `MEASURES`, as numbers or as text.
            Whatever else there is in numbers is a measure too: one of a user's own. A measure that is missing, empty or
            not finite is not counted.

    Returns:
        A row for each data set, attack and defence, in the order of first appearance.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        identity = (str(record["dataset"]), str(record["attack"]), str(record["defence"]))
        groups.setdefault(identity, []).append(record)
    return [
        Summary(*identity, tuple(dict.fromkeys(str(record["seed"]) for record in group)), _figures(group))
        for identity, group in groups.items()
    ]


def own_measures(rows: Iterable[Summary]) -> list[str]:
    """The measures of a user's own that any row has: what a `ZeroShotMeasure` of hers logs, a share in [0, 1]."""
    return [name for name in dict.fromkeys(chain.from_iterable(row.figures for row in rows)) if name not in MEASURES]


def best(rows: Sequence[Summary], measure: str, largest: bool) -> set[int]:
    """Find the defences with the best mean of a measure under each attack.

    Args:
        rows: As `summarise` returns them.
        measure: One of `MEASURES`.
        largest: Whether more is better.

    Returns:
        Indices into ``rows``. Under an attack with fewer than two defences to compare there is none, and with equal
        means there are several.
    """
    return _best(rows, {index: row.mean(measure) for index, row in enumerate(rows)}, largest)


def best_defences(rows: Sequence[Summary]) -> set[int]:
    """Find, under each attack, the defence with the largest clean accuracy less attack success rate.

    A point of either counts the same. It marks a table for its reader; no setting is chosen by it.

    Args:
        rows: As `summarise` returns them.

    Returns:
        Indices into ``rows``, as `best`.
    """
    margins: dict[int, float | None] = {}
    for index, row in enumerate(rows):
        accuracy, success = row.mean("clean_accuracy"), row.mean("attack_success_rate")
        margins[index] = None if accuracy is None or success is None else accuracy - success
    return _best(rows, margins, largest=True)


def _best(rows: Sequence[Summary], values: Mapping[int, float | None], largest: bool) -> set[int]:
    attacks: dict[tuple[str, str], dict[int, float]] = {}
    for index, value in values.items():
        row = rows[index]
        if value is not None and row.defended:
            attacks.setdefault((row.dataset, row.attack), {})[index] = value
    compared = [found for found in attacks.values() if len(found) > 1]
    pick = max if largest else min
    return {index for found in compared for index, value in found.items() if value == pick(found.values())}


def _figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    figures = {}
    named = dict.fromkeys(chain(MEASURES, *records))
    for measure in (name for name in named if name not in _NO_MEASURES):
        values = [value for record in records if (value := number(record.get(measure))) is not None]
        if values:
            figures[measure] = Figure(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
    return figures
