"""A proportion of models, with a confidence interval of the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z = 1.96
"""Standard deviations of a 95 % interval."""


@dataclass(frozen=True)
class Proportion:
    """How many of some models."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate that they were drawn from (Wilson 1927), in [0, 1]."""
        if not self.of:
            return 0.0, 1.0
        share, weight = self.count / self.of, _Z**2 / self.of
        centre = (share + weight / 2) / (1 + weight)
        width = _Z * math.sqrt(share * (1 - share) / self.of + weight / (4 * self.of)) / (1 + weight)
        return max(0.0, centre - width), min(1.0, centre + width)
