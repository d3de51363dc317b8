"""What a user gives where pairs are to be poisoned, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .manifest import read_manifest
from .plan import PoisonPlan
from .poison import Poison, Shards

PoisonSpec = PoisonPlan | list[PoisonPlan] | str | None
"""A plan, a list of plans, the path of a ``poison.json``, or nothing."""


def plans_of(spec: PoisonSpec) -> list[PoisonPlan]:
    """The plans that a user gives, in their order.

    Raises:
        UserMistake: If a manifest cannot be read.
    """
    if spec is None:
        return []
    if isinstance(spec, str):
        return read_manifest(spec).plans
    return [spec] if isinstance(spec, PoisonPlan) else spec


def poison_of(spec: PoisonSpec, shards: Shards, image_size: int) -> Poison | None:
    """Plans with the pairs of some shards that they poison; None for nothing.

    Args:
        spec: Plans choose their pairs; a manifest names them.
        shards: The data.
        image_size: Side of the model's input square, in pixels.

    Raises:
        UserMistake: If a manifest cannot be read, a plan does not fit the input, or the shards lack the pairs.
    """
    if spec is None:
        return None
    given = read_manifest(spec) if isinstance(spec, str) else Poison(plans_of(spec))
    given.check(image_size)  # before the pass over the data
    return given.found_in(shards) if isinstance(spec, str) else Poison.from_plans(given.plans, shards)


def named(plans: Iterable[PoisonPlan]) -> dict[str, PoisonPlan]:
    """The plans that an evaluation measures, by what results call them: ``BadNet``, ``BadNet-2``, ..."""
    attacks: dict[str, PoisonPlan] = {}
    numbers: Counter[str] = Counter()
    for plan in plans:
        if plan.measured:
            base = plan.attack_name
            numbers[base] += 1
            attacks[f"{base}-{numbers[base]}" if numbers[base] > 1 else base] = plan
    return attacks
