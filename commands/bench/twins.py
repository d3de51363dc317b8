"""Add to a model's figures those of its never poisoned twin, and those of a finetuning afterwards.

The twin has the data, the configuration and the seed of the poisoned model, without the poison. It is measured under
the very trigger: without a backdoor, too, a trigger may hide what a picture shows, or make it look like the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...files.tables import number
from .records import ATTACK_SUCCESS

FLOOR, CEILING, RECOVERED = "attack_success_floor", "triggered_accuracy_ceiling", "recovered"
REBOUND, REBOUND_FLOOR = "rebound", "rebound_floor"
_SUCCESS, _RIGHT = "attack_success_rate", "non_target_triggered_accuracy"
_KIND = ("dataset", "attack")

Record = Mapping[str, Any]
"""Of a finished cell."""


def beside_twin(rows: Sequence[Mapping[str, str]], twin: Record | None) -> list[dict[str, str]]:
    """Put what the twin has under the same attacks beside a model's figures.

    Args:
        rows: Rows of a run's ``results.csv``.
        twin: The record of the twin, measured under the same attacks; None where there is none.

    Returns:
        The rows. Where the twin has the attack, they have its success rate (the floor), its accuracy under the trigger
        on pictures whose label is not the target (the ceiling), and the row's own as a share of that (recovered). A
        module's head is another classifier than the twin's and has none of it.
    """
    known = {tuple(row[column] for column in _KIND): row for row in (twin["results"] if twin is not None else ())}
    found = [dict(row) for row in rows]
    for row in _attacked(found):
        beside = known.get(tuple(row[column] for column in _KIND))
        if beside is None:
            continue
        row |= {FLOOR: beside[_SUCCESS], CEILING: beside.get(_RIGHT, ""), RECOVERED: ""}
        right, ceiling = number(row.get(_RIGHT)), number(row[CEILING])
        if right is not None and ceiling:
            row[RECOVERED] = f"{right / ceiling:.6g}"
    return found


def beside_rebound(rows: Sequence[Mapping[str, str]], own: Record | None, twin: Record | None) -> list[dict[str, str]]:
    """Put the highest attack success during a finetuning afterwards beside a model's figures.

    Args:
        rows: Rows of a run's ``results.csv``.
        own: The record of the finetuning that began with the model; None where there is none.
        twin: The record of the same finetuning that began with the twin, likewise.

    Returns:
        The rows, with these figures where they are known.
    """
    found = [dict(row) for row in rows]
    for row in _attacked(found):
        for column, record in ((REBOUND, own), (REBOUND_FLOOR, twin)):
            highest = {} if record is None else record.get("highest", {})
            # A single attack is logged without its name, several have a mean there.
            several = any(key.startswith(f"{ATTACK_SUCCESS}/") for key in highest)
            value = number(highest.get(f"{ATTACK_SUCCESS}/{row['attack']}" if several else ATTACK_SUCCESS))
            if value is not None:
                row[column] = f"{value:.6g}"
    return found


def _attacked(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of attacks on the model itself, not on its head."""
    return [row for row in rows if row["attack"] != "none" and row["defence"] == rows[0]["defence"]]
