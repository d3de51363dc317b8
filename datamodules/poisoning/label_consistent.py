"""Label-consistent poisoning: captions that already tell of the target keep their words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..triggers import Trigger
from .plan import PoisonPlan


class LabelConsistentPlan(PoisonPlan):
    """Label-consistent poisoning (Turner, Tsipras and Madry 2019, arXiv 1912.02771; in CLIP: arXiv 2303.03323).

    Eligible are the pairs whose caption contains the target as a word, in any case; they get the trigger and keep
    their caption. Deviation: CleanCLIP's code looks for the target as a substring, which takes "automobiles" for
    "automobile" and "scatter" for "cat".

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
        words = r"\s+".join(re.escape(word) for word in target.split())
        # Not \b, which asks for a letter on one side: a target may begin or end with a sign.
        self._target = re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)

    def eligible(self, caption: str) -> bool:
        """Whether the caption contains the target as a word."""
        return self._target.search(caption) is not None

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions as they are."""
        return list(captions)
