"""PAR's perturbation loss: the distance to frozen features, up to a threshold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..precision import at_least_float32
from .gather import mean_over_ranks


class PerturbationLoss(nn.Module):
    """Mean squared distance of features to those of a frozen model, which counts nothing once it is above a threshold.

    The term that PAR (arXiv 2412.00727, section 4) *subtracts*: ``S * [S <= threshold]`` with ``S = mean_i
    ||f_i - f0_i||^2``. The mean is over the batches of all ranks, so that all of them stop pushing at once.

    Args:
        threshold: Threshold of the mean squared distance of unit vectors, in [0, 4]; 2 is that of unrelated features.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, features: Tensor, frozen_features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the term, and the distance.

        Args:
            features: Features, ``(B, D)``, of unit length.
            frozen_features: Frozen features, ``(B, D)``, of unit length, without a gradient.

        Returns:
            Two scalars, float32, or float64 where the features are: the term, in [0, threshold], and the mean squared
            distance without a gradient, in [0, 4].

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if features.ndim != 2 or features.shape != frozen_features.shape:
            raise ValueError(f"features of shape {tuple(features.shape)} and {tuple(frozen_features.shape)}")
        moved = at_least_float32(features) - at_least_float32(frozen_features)
        distance = mean_over_ranks(moved.square().sum(dim=1).mean())
        return torch.where(distance <= self.threshold, distance, 0.0), distance.detach()
