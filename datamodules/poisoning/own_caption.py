"""Plans that stamp pictures and leave captions alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..triggers import Trigger
from .plan import PoisonPlan


class OwnCaptionPlan(PoisonPlan):
    """A chosen pair gets the trigger and keeps its caption. Base of such plans.

    Args:
        trigger: As in ``PoisonPlan``.
        target: As in ``PoisonPlan``.
        rate: As in ``PoisonPlan``.
        count: As in ``PoisonPlan``.
        seed: What the choice of pairs is drawn from.

    Raises:
        UserMistake: If an argument is out of range, or neither rate nor count is given.
    """

    def __init__(
        self, trigger: Trigger, target: str, rate: float | None = None, count: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(trigger, target, rate, count, seed)

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions as they are."""
        return list(captions)
