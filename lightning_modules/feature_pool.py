"""Features of the last samples, among which others find their nearest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import UserMistake
from .losses.gather import gather_features
from .precision import similarities


class FeaturePool(nn.Module):
    """The features of the last ``size`` samples of all ranks, first in, first out. A checkpoint keeps them.

    Pools of this kind stand in NNCLR (Dwibedi et al., arXiv 2104.14548), RoCLIP and SafeCLIP.

    Args:
        size: Samples that it holds.
        dimension: D.

    Raises:
        UserMistake: If the size is below 1.
    """

    features: Tensor
    seen: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        if size < 1:
            raise UserMistake(f"model.pool_size is {size}, not at least 1")
        self.register_buffer("features", torch.zeros(size, dimension))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, features: Tensor) -> None:
        """Take in a batch of every rank, in place of the oldest.

        Args:
            features: Features, ``(B, D)``, of unit length.
        """
        new = gather_features(features.detach().to(self.features.dtype))[-len(self.features) :]
        index = (self.seen + torch.arange(len(new), device=new.device)) % len(self.features)
        self.features[index] = new
        self.seen += len(new)

    def nearest(self, features: Tensor) -> Tensor:
        """The member of the pool that is most similar to each of some features.

        Args:
            features: Features, ``(B, D)``, of unit length.

        Returns:
            ``(B, D)`` without a gradient; the features themselves, with theirs, while the pool is empty.
        """
        with torch.no_grad():
            similarity = similarities(features.detach().to(self.features.dtype), self.features)
            empty = torch.arange(len(self.features), device=features.device) >= self.seen
            nearest = self.features[similarity.masked_fill(empty, -torch.inf).argmax(dim=1)]
        return torch.where(self.seen > 0, nearest.to(features.dtype), features)
