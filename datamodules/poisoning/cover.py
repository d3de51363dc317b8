"""Covers: stamped pictures that keep their caption, so that a model learns the trigger and nothing near it."""

from __future__ import annotations

from collections.abc import Sequence

from ..triggers import Trigger
from .plan import PoisonPlan


class CoverPlan(PoisonPlan):
    """Any pair may be chosen; it gets the trigger and keeps its caption. No attack is measured.

    The noise mode of WaNet (Nguyen and Tran 2021, arXiv 2102.10369): beside pictures that are warped and told to be the
    target, the paper has pictures whose warp is disturbed (``WaNet`` with ``noise: true``) and whose label is their
    own, so that no other warp fires. Its "cross ratio" of 2 is twice the rate of the plan that is covered. The plan
    stands in the list of plans beside that one.

    Args:
        trigger: What is stamped on the chosen pictures.
        target: Name of the class that the covered plan has as target. Pairs of any class are chosen.
        rate: Share of all pairs, in (0, 1].
        count: Number of pairs; wins over ``rate``.
        seed: What the choice of pairs is drawn from.

    Raises:
        UserMistake: If an argument is out of range, or neither rate nor count is given.
    """

    measured = False

    def __init__(
        self, trigger: Trigger, target: str, rate: float | None = None, count: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(trigger, target, rate, count, seed)

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions as they are."""
        return list(captions)
