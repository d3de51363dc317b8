"""The augmentation that nearly everyone uses, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...contracts import UserMistake
from .base import ImageView


class RandomHorizontalFlip(ImageView):
    """Mirrors some of the pictures. Through ``TransformView``, torchvision's would be called picture by picture.

    Args:
        p: Probability that a picture is mirrored, in [0, 1].

    Raises:
        UserMistake: If ``p`` is no probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise UserMistake(f"the probability of a flip is {p}, not in [0, 1]")
        self.p = p

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """See ``ImageView``."""
        mirrored = torch.tensor([seed < self.p * 2.0**64 for seed in seeds]).view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(-1), images)
