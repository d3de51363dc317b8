"""Keeping features where they were."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ..precision import at_least_float32


class RetentionLoss(nn.Module):
    """Mean cosine distance of features to those that a frozen model gives for the same pictures."""

    def forward(self, features: Tensor, frozen_features: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            features: Features, ``(B, D)``.
            frozen_features: Frozen features, ``(B, D)``, without a gradient.

        Returns:
            Scalar, in [0, 2], float32, or float64 where the features are.

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if features.ndim != 2 or features.shape != frozen_features.shape:
            raise ValueError(f"features of shape {tuple(features.shape)} and {tuple(frozen_features.shape)}")
        now, before = at_least_float32(features), at_least_float32(frozen_features)
        return 1 - functional.cosine_similarity(now, before, dim=1).mean()
