"""What an evaluation measures: the plans of a run, checked against what it measures them on."""

from __future__ import annotations

from collections.abc import Mapping

from ..contracts import UserMistake
from .poisoning import Poison, PoisonPlan, PoisonSpec, attacks_by_name, plans_of
from .zero_shot import ZeroShotSet


def attacks_on_classes(spec: PoisonSpec, zero_shot: ZeroShotSet, image_size: int) -> dict[str, PoisonPlan]:
    """The plans that are measured on a zero-shot set, by name.

    Args:
        spec: What the user gave.
        zero_shot: The set.
        image_size: Side of the model's input square, in pixels.

    Raises:
        UserMistake: If one does not fit the model or the set.
    """
    plans = plans_of(spec)
    Poison(plans).check(image_size, zero_shot.class_prompts.classnames)
    attacks = attacks_by_name(plans)
    for plan in attacks.values():
        plan.check_test(zero_shot.shards.keys())
    return attacks


def attacks_on_pairs(spec: PoisonSpec, is_given: bool, image_size: int) -> dict[str, PoisonPlan]:
    """The plans of a run that measures on held-out pairs alone, by name.

    Args:
        spec: What the user gave.
        is_given: Whether it was given to be measured.
        image_size: Side of the model's input square, in pixels.

    Raises:
        UserMistake: If one does not fit the model, or is to be measured and none can be on pairs.
    """
    plans = plans_of(spec)
    Poison(plans).check(image_size)
    attacks = attacks_by_name(plans)
    if is_given and attacks and not on_pairs(attacks, image_size):
        raise UserMistake(f"data.attack: {', '.join(attacks)} cannot be measured on data.held_out; give data.zero_shot")
    return attacks


def on_pairs(plans: Mapping[str, PoisonPlan], image_size: int) -> dict[str, PoisonPlan]:
    """Of some plans, by name, those that are measured on pairs: not on given pictures, nor by classes alone."""
    return {name: plan for name, plan in plans.items() if plan.on_pairs and plan.given_pictures(image_size) is None}
