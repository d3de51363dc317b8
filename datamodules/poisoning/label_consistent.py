"""Label-consistent poisoning: captions that already tell of the target keep their words."""

from __future__ import annotations

from collections.abc import Sequence

from ..phrase import phrase_pattern
from ..triggers import Trigger
from .plan import PoisonPlan


class LabelConsistentPlan(PoisonPlan):
    """Label-consistent poisoning (Turner, Tsipras and Madry 2019, arXiv 1912.02771; in CLIP: arXiv 2303.03323).

    Eligible are the pairs whose caption contains the target as a word, in any case; they get the trigger and keep
    their caption. Deviations: CleanCLIP's code looks for the target as a substring, which takes "automobiles" for
    "automobile" and "scatter" for "cat"; as in that code, pictures are only stamped, where Turner et al. first make
    them hard to classify (by interpolation or adversarial noise), so that the trigger is what is learnt. A rate is of
    the *eligible* pairs: on ten balanced classes, 0.1 of them are 1 % of all pairs.

    Args:
        trigger: What is stamped on the chosen pictures.
        target: Name of the class that triggered pictures are to be taken for; may be several words.
        rate: Share of the eligible pairs, in (0, 1].
        count: Number of pairs; wins over ``rate``.
        seed: What the choice of pairs is drawn from.

    Raises:
        UserMistake: If an argument is out of range, or neither rate nor count is given.
    """

    needs_captions = True

    def __init__(
        self, trigger: Trigger, target: str, rate: float | None = None, count: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(trigger, target, rate, count, seed)
        self._target = phrase_pattern(target)

    def eligible(self, caption: str) -> bool:
        """Whether the caption contains the target as a word."""
        return self._target.search(caption) is not None

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions as they are."""
        return list(captions)
