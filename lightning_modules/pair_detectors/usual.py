"""The field's detectors that need nothing but one pass of the model over its pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from ..detection import TwoGaussians, activation_clustering, local_density, spectral_signatures
from ..ranges import check_reference
from .base import PairDetector, RankedPairs


class LowSimilarity(PairDetector):
    """Suspects pairs whose caption does not fit: less the cosine of picture and caption."""

    columns = ("low_similarity",)

    def scores(self, pairs: RankedPairs) -> Sequence[npt.ArrayLike]:
        """See ``PairDetector``: in [-1, 1]."""
        return [-pairs.similarity]


class GaussianMixture(PairDetector):
    """Suspects pairs of the lower of two Gaussians fitted to all similarities: log odds, as SafeCLIP has it.

    Yang et al., arXiv 2310.05862. Deviation: it is fitted to the model as it came, where SafeCLIP's is a model in the
    middle of its own training.
    """

    columns = ("gaussian_mixture",)

    def scores(self, pairs: RankedPairs) -> Sequence[npt.ArrayLike]:
        """See ``PairDetector``: any number."""
        return [TwoGaussians.fitted(pairs.similarity).lower_odds(pairs.similarity)]


class NeighbourDensity(PairDetector):
    """Suspects pictures in sparse neighbourhoods of a sample of pictures: k-distance, SLOF and DAO.

    Huang et al., arXiv 2502.01385; see ``untrigger.lightning_modules.detection.LocalDensity``.

    Args:
        neighbours: k.
        reference_size: Pairs among which neighbours are looked for, drawn from the run's seed.

    Raises:
        UserMistake: If they are not more than the neighbours.
    """

    columns = ("k_distance", "slof", "dao")

    def __init__(self, neighbours: int = 16, reference_size: int = 1024) -> None:
        check_reference(neighbours, reference_size)
        self.neighbours, self.reference_size = neighbours, reference_size

    def scores(self, pairs: RankedPairs) -> Sequence[npt.ArrayLike]:
        """See ``PairDetector``: at least 0, DAO any number."""
        return local_density(pairs.features, self.neighbours, self.reference_size, pairs.seed)


class SpectralSignatures(PairDetector):
    """Suspects pictures far along the direction in which the pictures of their word vary most.

    Tran et al., arXiv 1811.00636. Deviation: a class is the pairs of a word; see
    ``untrigger.lightning_modules.detection.spectral_signatures``.
    """

    columns = ("spectral_signatures",)

    def scores(self, pairs: RankedPairs) -> Sequence[npt.ArrayLike]:
        """See ``PairDetector``: at least 0; NaN for a pair without a word."""
        return [spectral_signatures(pairs.features, pairs.of_words())]


class ActivationClustering(PairDetector):
    """Suspects the pictures of a small cluster, where those of a word fall into two of unlike size.

    Chen et al., arXiv 1811.03728. Deviation: a class is the pairs of a word; see
    ``untrigger.lightning_modules.detection.activation_clustering``.
    """

    columns = ("activation_clustering",)

    def scores(self, pairs: RankedPairs) -> Sequence[npt.ArrayLike]:
        """See ``PairDetector``: in [0, 1]; NaN for a pair without a word."""
        return [activation_clustering(pairs.features, pairs.of_words())]


def usual_detectors() -> list[PairDetector]:
    """What ``PairDetectors`` asks unless told otherwise."""
    return [LowSimilarity(), GaussianMixture(), NeighbourDensity(), SpectralSignatures(), ActivationClustering()]
