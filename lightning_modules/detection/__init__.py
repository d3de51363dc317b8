"""Evidence of a backdoor that needs no ground truth."""

from .adaptive_cost import AdaptiveCost
from .local_density import DensityScores, LocalDensity, local_density
from .mixture import TwoGaussians
from .outliers import activation_clustering, spectral_signatures
from .trigger_files import PICTURE, write_trigger
from .two_means import two_means

__all__ = [
    "PICTURE",
    "AdaptiveCost",
    "DensityScores",
    "LocalDensity",
    "TwoGaussians",
    "activation_clustering",
    "local_density",
    "spectral_signatures",
    "two_means",
    "write_trigger",
]
