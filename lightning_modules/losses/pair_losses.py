"""The contrastive loss of each pair by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import similarities
from .gather import gather_features, own_rows, several_ranks


class PairLosses(nn.Module):
    """What ``ContrastiveLoss`` is the mean of: for each pair, ``(CE(s_i., i) + CE(s_.i, i)) / 2``.

    For methods that treat pairs of one batch differently. All ranks' pairs are negatives. A loss that is a mean over
    the pairs of each rank has, with DDP's mean over ranks, the gradient of one process on the union of the batches.
    """

    def forward(
        self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor, alike: Tensor | None = None
    ) -> Tensor:
        """Compute the losses.

        Args:
            image_features: Image features, ``(B, D)``, of unit length.
            text_features: Text features, ``(B, D)``, of unit length.
            logit_scale: Scalar, the inverse temperature.
            alike: ``(B,)`` bool, pairs that are not to be told apart: no negatives of each other, as if each of them
                stood alone among the others. None where there are none.

        Returns:
            ``(B,)``, at least 0, of this rank's pairs; float32, or float64 where the features are.

        Raises:
            ValueError: If the features do not have the same shape ``(B, D)``.
        """
        if image_features.ndim != 2 or image_features.shape != text_features.shape:
            raise ValueError(f"features of shape {tuple(image_features.shape)} and {tuple(text_features.shape)}")
        images, texts = gather_features(image_features), gather_features(text_features)
        count, device = len(image_features), images.device
        own = own_rows(count, device) if several_ranks() else torch.arange(count, device=device)
        left_out = None
        if alike is not None:
            of_all = gather_features(alike.float()[:, None])[:, 0].bool()
            others = own[:, None] != torch.arange(len(images), device=device)
            left_out = alike[:, None] & of_all & others
        both = []
        for rows, columns in ((image_features, texts), (text_features, images)):
            logits = similarities(rows, columns, logit_scale)
            if left_out is not None:
                logits = logits.masked_fill(left_out, -torch.inf)
            both.append(functional.cross_entropy(logits, own, reduction="none"))
        return (both[0] + both[1]) / 2
