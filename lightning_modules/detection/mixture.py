"""Two Gaussians in a sample of numbers, by expectation maximisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake

_STEPS, _SETTLED, _NARROWEST = 500, 1e-8, 1e-3
"""Most steps; the gain in mean log likelihood that ends it; the least spread, as a share of that of all numbers."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TwoGaussians:
    """A mixture of two Gaussians on the line.

    SafeCLIP (Yang et al., arXiv 2310.05862) fits one to the similarities of all pairs. A split fitted to numbers always
    splits them: nothing says that there are two kinds.

    Attributes:
        means: Means of the lower and the higher component.
        spreads: Their standard deviations.
        shares: Their weights, which sum to 1.
    """

    means: tuple[float, float]
    spreads: tuple[float, float]
    shares: tuple[float, float]

    @classmethod
    def fitted(cls, numbers: npt.ArrayLike) -> TwoGaussians:
        """Fit the mixture, from the means of the lower and the upper half on: the same numbers give the same mixture.

        Args:
            numbers: ``(N,)``, at least two different ones; what is not finite is left out.

        Raises:
            UserMistake: If they are not.
        """
        values = np.asarray(numbers, dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(np.unique(values)) < 2:
            raise UserMistake(
                "a mixture of two Gaussians needs two different numbers: are all pairs alike to the model?"
            )
        upper = values > np.median(values)
        upper = upper if upper.any() else values == values.max()
        of_upper, floor, before = upper.astype(np.float64), _NARROWEST * values.std(), -np.inf
        for _ in range(_STEPS):
            mixture = cls._of(values, of_upper, floor)
            lower, higher = mixture._densities(values)
            likelihood = np.logaddexp(lower, higher)
            of_upper = np.exp(higher - likelihood)
            if (now := float(likelihood.mean())) - before < _SETTLED:
                break
            before = now
        return mixture

    def lower_odds(self, numbers: npt.ArrayLike) -> Numbers:
        """Logarithm of the odds that numbers are of the component with the lower mean: ``(N,)``, NaN for NaN."""
        lower, higher = self._densities(np.asarray(numbers, dtype=np.float64))
        return lower - higher

    def higher_probability(self, numbers: npt.ArrayLike) -> Numbers:
        """The probability that numbers are of the component with the higher mean: ``(N,)`` in [0, 1]."""
        odds = np.clip(self.lower_odds(numbers), -700, 700)
        return np.asarray(1 / (1 + np.exp(odds)))

    @classmethod
    def _of(cls, values: Numbers, of_upper: Numbers, floor: float) -> TwoGaussians:
        """What is most likely where this is how much of each number is of the upper component."""
        parts = []
        for weights in (1 - of_upper, of_upper):
            total = max(float(weights.sum()), 1e-12)
            mean = float(weights @ values / total)
            spread = max(float(np.sqrt(weights @ (values - mean) ** 2 / total)), floor)
            parts.append((mean, spread, max(total / len(values), 1e-12)))
        parts.sort()
        means, spreads, shares = zip(*parts, strict=True)
        return cls(means, spreads, shares)

    def _densities(self, values: Numbers) -> tuple[Numbers, Numbers]:
        """Logarithms of both components' weighted densities, up to the same constant."""
        lower, higher = (
            np.log(share / spread) - ((values - mean) / spread) ** 2 / 2
            for mean, spread, share in zip(self.means, self.spreads, self.shares, strict=True)
        )
        return lower, higher
