"""The symmetric contrastive loss of CLIP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import similarities
from .gather import gather_features, mean_over_ranks, own_rows, several_ranks


class ContrastiveLoss(nn.Module):
    """Cross entropy between each picture and all captions, and between each caption and all pictures.

    CLIP (Radford et al., arXiv 2103.00020, figure 3): with the similarities ``s_ij`` of picture i and caption j times
    the inverse temperature, ``(mean_i CE(s_i., i) + mean_j CE(s_.j, j)) / 2``. All ranks' pairs are negatives.

    Args:
        local: Each rank computes the cross entropies of its own pictures and captions alone, ``2 B * NB`` similarities
            on each of N ranks instead of ``NB * NB`` (open_clip's ``local_loss`` with ``gather_with_grad``). Loss and
            gradient are the same, up to rounding.
    """

    def __init__(self, local: bool = False) -> None:
        super().__init__()
        self.local = local

    def forward(self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            image_features: Image features, ``(B, D)``, of unit length.
            text_features: Text features, ``(B, D)``, of unit length.
            logit_scale: Scalar, the inverse temperature.

        Returns:
            Scalar, at least 0, that of all ranks on each; float32, or float64 where the features are.

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if image_features.ndim != 2 or image_features.shape != text_features.shape:
            raise ValueError(f"features of shape {tuple(image_features.shape)} and {tuple(text_features.shape)}")
        images, texts = gather_features(image_features), gather_features(text_features)
        if self.local and several_ranks():
            own = own_rows(len(image_features), images.device)
            to_texts = functional.cross_entropy(similarities(image_features, texts, logit_scale), own)
            to_images = functional.cross_entropy(similarities(text_features, images, logit_scale), own)
            return mean_over_ranks((to_texts + to_images) / 2)
        logits = similarities(images, texts, logit_scale)
        labels = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
