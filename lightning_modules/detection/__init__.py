"""Evidence of a backdoor that needs no ground truth."""

from .adaptive_cost import AdaptiveCost
from .local_density import DensityScores, LocalDensity, local_density

__all__ = ["AdaptiveCost", "DensityScores", "LocalDensity", "local_density"]
