"""Detectors of poisoned pairs: each a class, and the module that asks all of them."""

from .base import PairDetector, RankedPairs
from .module import PairDetectors
from .usual import (
    ActivationClustering,
    GaussianMixture,
    LowSimilarity,
    NeighbourDensity,
    SpectralSignatures,
    usual_detectors,
)

__all__ = [
    "ActivationClustering",
    "GaussianMixture",
    "LowSimilarity",
    "NeighbourDensity",
    "PairDetector",
    "PairDetectors",
    "RankedPairs",
    "SpectralSignatures",
    "usual_detectors",
]
