"""The contrastive loss within one modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .gather import gather_features


class SelfSupervisedLoss(nn.Module):
    """Cross entropy between each sample and the augmented views of all samples of the same modality.

    One of the two terms of CleanCLIP's self-supervised loss (Bansal et al., arXiv 2303.03323): with the similarities
    ``s_ij`` of sample i and the view of sample j times the inverse temperature, ``mean_i CE(s_i., i)``. As in the paper
    and the official code (``src/train.py`` at c19dfc4) it has one direction, from samples to views, where
    ``ContrastiveLoss`` has both. All ranks' views are negatives; other samples themselves are not.
    """

    def forward(self, features: Tensor, view_features: Tensor, logit_scale: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            features: ``(B, D)``, of unit length.
            view_features: ``(B, D)``, of unit length; row i is the view of sample i.
            logit_scale: Scalar, the inverse temperature.

        Returns:
            Scalar, at least 0, float32 whatever the precision of the features.

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if features.ndim != 2 or features.shape != view_features.shape:
            raise ValueError(f"features of shape {tuple(features.shape)} and {tuple(view_features.shape)}")
        samples, views = gather_features(features), gather_features(view_features)
        # As in ContrastiveLoss: half precision would round what is then multiplied by up to 100.
        with torch.autocast(samples.device.type, enabled=False):
            logits = logit_scale.float() * samples.float() @ views.float().T
            return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
