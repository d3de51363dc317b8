"""The symmetric contrastive loss of CLIP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .gather import gather_features


class ContrastiveLoss(nn.Module):
    """Cross entropy between each picture and all captions, and between each caption and all pictures.

    CLIP (Radford et al., arXiv 2103.00020, figure 3): with the similarities ``s_ij`` of picture i and caption j times
    the inverse temperature, ``(mean_i CE(s_i., i) + mean_j CE(s_.j, j)) / 2``. All ranks' pairs are negatives.
    """

    def forward(self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            image_features: ``(B, D)``, of unit length.
            text_features: ``(B, D)``, of unit length.
            logit_scale: Scalar, the inverse temperature.

        Returns:
            Scalar, at least 0, float32 whatever the precision of the features.

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if image_features.ndim != 2 or image_features.shape != text_features.shape:
            raise ValueError(f"features of shape {tuple(image_features.shape)} and {tuple(text_features.shape)}")
        images, texts = gather_features(image_features), gather_features(text_features)
        # Under autocast the product would be rounded to 8 bits of mantissa, then multiplied by up to 100.
        with torch.autocast(images.device.type, enabled=False):
            logits = logit_scale.float() * images.float() @ texts.float().T
            labels = torch.arange(len(logits), device=logits.device)
            return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
