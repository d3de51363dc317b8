"""What a never poisoned twin says of an attack's figures: the floor of its success, and the ceiling of what is right.

The twin has the data, the configuration and the seed of the poisoned model, without the poison. It is measured under
the very trigger: without a backdoor, too, a trigger may hide what a picture shows, or make it look like the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..summary import number

FLOOR, CEILING, RECOVERED = "attack_success_floor", "triggered_accuracy_ceiling", "recovered"
_SUCCESS, _RIGHT = "attack_success_rate", "non_target_triggered_accuracy"
_KIND = ("dataset", "attack")


def beside_twin(rows: Sequence[Mapping[str, str]], twin: Sequence[Mapping[str, str]] | None) -> list[dict[str, str]]:
    """Put what the twin has under the same attacks beside a model's figures.

    Args:
        rows: Of a run's ``results.csv``.
        twin: The rows of the twin's, measured under the same attacks; None where that is not known.

    Returns:
        The rows. Where the twin has the attack, they have its success rate (the floor), its accuracy under the trigger
        on pictures whose label is not the target (the ceiling), and the row's own as a share of that (recovered). A
        module's head is another classifier than the twin's and has none of it.
    """
    known = {tuple(row[column] for column in _KIND): row for row in twin or ()}
    found = [dict(row) for row in rows]
    for row in found:
        beside = known.get(tuple(row[column] for column in _KIND))
        if beside is None or row["attack"] == "none" or row["defence"] != found[0]["defence"]:
            continue
        row |= {FLOOR: beside[_SUCCESS], CEILING: beside.get(_RIGHT, ""), RECOVERED: ""}
        right, ceiling = number(row.get(_RIGHT)), number(row[CEILING])
        if right is not None and ceiling:
            row[RECOVERED] = f"{right / ceiling:.6g}"
    return found
