"""Evidence of a backdoor that needs no ground truth."""

from .adaptive_cost import AdaptiveCost
from .groups import activation_clustering, spectral_signatures
from .local_density import DensityScores, LocalDensity, local_density
from .mixture import TwoGaussians

__all__ = [
    "AdaptiveCost",
    "DensityScores",
    "LocalDensity",
    "TwoGaussians",
    "activation_clustering",
    "local_density",
    "spectral_signatures",
]
