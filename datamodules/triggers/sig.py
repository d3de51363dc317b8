"""SIG: a sinusoid over the columns (Barni, Kallas and Tondi 2019, arXiv 1902.11237)."""

from __future__ import annotations

import math

import torch

from ...contracts import UserMistake
from .fixed_pattern import FixedPattern, Stamp


class SIG(FixedPattern):
    """Adds ``delta sin(2 pi j f / m)`` to column j of m, in every row and channel, rounded and clipped to 0..255.

    The paper's "horizontal sinusoidal signal", which it uses *without changing labels*: with ``LabelConsistentPlan``
    only pictures whose captions name the target are stamped (clean-label); with ``PoisonPlan`` any are (dirty-label).
    The paper's amplitudes depend on the data set and are 8-bit values, as here. The defaults are the field's:
    BackdoorBench's code has delta 40 and f 6 over the width; BadCLIP's (arXiv 2311.12075) has delta 60, f 6.

    Deviations of public code that are not followed: CleanCLIP's blends the sinusoid at 0.2, which leaves an amplitude
    of 12 and dims the picture to 0.8.

    Args:
        delta: Amplitude, in 8-bit values, above 0 and at most 255.
        frequency: Periods over the width of the input, above 0.

    Raises:
        UserMistake: If an argument is out of range.
    """

    def __init__(self, delta: float = 40.0, frequency: float = 6.0) -> None:
        super().__init__()
        if not 0 < delta <= 255:
            raise UserMistake(f"SIG's delta is {delta}; the amplitude is in 8-bit values, above 0 and at most 255")
        if not 0 < frequency < math.inf:
            raise UserMistake(f"SIG's frequency is {frequency}; give the periods over the width, above 0")
        self.delta = delta
        self.frequency = frequency

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: a period has to be at least two pixels, or another sinusoid is seen."""
        if 2 * self.frequency > image_size:
            raise UserMistake(
                f"SIG's frequency {self.frequency} needs an input of at least {math.ceil(2 * self.frequency)} pixels, "
                f"and this one has {image_size}"
            )

    def draw(self, size: int) -> Stamp:
        """The sinusoid as an offset."""
        columns = torch.arange(size, dtype=torch.float64)
        signal = self.delta * torch.sin(2 * math.pi * self.frequency * columns / size)
        return Stamp(1.0, signal.float().expand(3, size, size))
