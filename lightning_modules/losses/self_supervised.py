"""The contrastive loss within one modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import similarities
from .gather import gather_features, mean_over_ranks, own_rows, several_ranks


class SelfSupervisedLoss(nn.Module):
    """Cross entropy between each sample and the augmented views of all samples of the same modality.

    One of the two terms of CleanCLIP's self-supervised loss (Bansal et al., arXiv 2303.03323): with the similarities
    ``s_ij`` of sample i and the view of sample j times the inverse temperature, ``mean_i CE(s_i., i)``. As in the paper
    and the official code (``src/train.py`` at c19dfc4) it has one direction, from samples to views, where
    ``ContrastiveLoss`` has both. All ranks' views are negatives; other samples themselves are not.

    Args:
        local: Each rank computes the cross entropies of its own samples alone, as in ``ContrastiveLoss``.
    """

    def __init__(self, local: bool = False) -> None:
        super().__init__()
        self.local = local

    def forward(self, features: Tensor, view_features: Tensor, logit_scale: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            features: Features, ``(B, D)``, of unit length.
            view_features: Features of the views, ``(B, D)``, of unit length; row i is the view of sample i.
            logit_scale: Scalar, the inverse temperature.

        Returns:
            Scalar, at least 0, that of all ranks on each; float32, or float64 where the features are.

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if features.ndim != 2 or features.shape != view_features.shape:
            raise ValueError(f"features of shape {tuple(features.shape)} and {tuple(view_features.shape)}")
        views = gather_features(view_features)
        if self.local and several_ranks():
            own = own_rows(len(features), views.device)
            return mean_over_ranks(functional.cross_entropy(similarities(features, views, logit_scale), own))
        logits = similarities(gather_features(features), views, logit_scale)
        return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
