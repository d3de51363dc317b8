"""Triggers that mix every picture with one pattern, at a given weight."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from ...contracts import UserMistake
from .fixed_pattern import FixedPattern, Stamp


class WeightedPattern(FixedPattern):
    """Blends each picture x with a pattern t: ``round((1 - alpha) x + alpha t)``, as ``FixedPattern`` rounds and clips.

    Args:
        alpha: Weight of the pattern, in (0, 1].

    Raises:
        UserMistake: If the weight is out of range.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise UserMistake(f"alpha is {alpha}; the pattern's weight must be above 0 and at most 1")
        self.alpha = alpha

    @abstractmethod
    def weighted(self, size: int) -> Tensor:
        """The pattern times alpha, ``(3, S, S)`` float32 in 8-bit values, for an input square of this side."""

    def draw(self, size: int) -> Stamp:
        """As in ``FixedPattern``."""
        return Stamp(1 - self.alpha, self.weighted(size))
