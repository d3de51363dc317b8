"""Forgetting an association."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..precision import at_least_float32


class ForgettingLoss(nn.Module):
    """Pushes pictures away from what they were wrongly associated with, as far as unrelated pairs are and no further.

    UBT's forgetting (arXiv 2403.16257) is local: the text is the compromised tokens alone. The abstracts leave the
    objective open; ours is ``mean_i max(s_i - u, 0)`` with the similarity ``s_i`` of picture i and its text and the
    mean similarity ``u`` of unrelated pictures with that text. It is bounded, where a negated contrastive loss is not,
    and its gradient is zero where there is nothing left to forget.

    A mean over pictures, it needs no gathering: DDP's mean over ranks is that over the pictures of all ranks.
    """

    def forward(self, image_features: Tensor, text_features: Tensor, unrelated: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            image_features: Image features, ``(B, D)``, of unit length.
            text_features: Text features, ``(B, D)``, of unit length.
            unrelated: Scalar or ``(B,)``, the similarity of unrelated pairs, in [-1, 1].

        Returns:
            Scalar, in [0, 2], float32, or float64 where the features are.

        Raises:
            ValueError: If the two do not have the same shape ``(B, D)``.
        """
        if image_features.ndim != 2 or image_features.shape != text_features.shape:
            raise ValueError(f"features of shape {tuple(image_features.shape)} and {tuple(text_features.shape)}")
        similarity = (at_least_float32(image_features) * at_least_float32(text_features)).sum(dim=1)
        return torch.relu(similarity - unrelated).mean()
