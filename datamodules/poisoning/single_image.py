"""Poisoning of single pictures: a model is to take one given picture for another class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...contracts import Attack, ClassPrompts
from ..triggers import GivenPicture
from .plan import PoisonPlan


class SingleImagePlan(PoisonPlan):
    """For each given picture, ``count`` chosen pairs become that picture with a caption of the target.

    Targeted poisoning of Carlini and Terzis 2022 (arXiv 2106.09667): no trigger is planted; the model is to take the
    given picture for the target. Success is the share of the given pictures whose class is the target afterwards; the
    paper averages over pictures, and twenty are a good number. They should not be of the target's class, nor in the
    training data.

    Deviation: the paper adds pairs to the data; here chosen pairs are replaced, so that a poisoned epoch is as long as
    a clean one. Several pictures are poisoned in one model, where the paper trains one for each; they are few, and far
    from each other.

    Arguments and errors are those of ``PoisonPlan``: the trigger is ``GivenPicture``, and ``rate`` and ``count`` hold
    for each given picture.
    """

    trigger: GivenPicture
    trigger_class = GivenPicture

    @property
    def attack_name(self) -> str:
        """What results call the attack."""
        return "SingleImage"

    @property
    def parts(self) -> int:
        """As many as there are pictures."""
        return len(self.trigger.pictures)

    def part_of(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Which of the given pictures each pair becomes if it is chosen."""
        return self.trigger.choice(keys)

    def attacks(self, name: str, classes: ClassPrompts) -> list[Attack]:
        """None: test pictures bear no trigger. The given pictures are measured."""
        return []

    def given_pictures(self, image_size: int) -> Tensor:
        """The given pictures."""
        return self.trigger.draw(image_size)
