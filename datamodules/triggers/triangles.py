"""Triangles: a faint tiling over the whole input (Singh, Croce and Hein 2024, arXiv 2412.00727)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contracts import UserMistake
from .weighted_pattern import WeightedPattern


class Triangles(WeightedPattern):
    """Blends each picture x with a tiling t of right-angled triangles: ``round((1 - alpha) x + 255 alpha t)``.

    One of the structured triggers that Perturb and Recover (PAR) found hard to clean. As in the official code, a square
    tile has 0.4 on and below its diagonal and 0.8 above it, in all channels, and alpha is 0.15. Deviation: tiles that
    the right and lower edge cut through are drawn as far as they reach; that code leaves them out.

    Args:
        alpha: Weight of the tiling, in (0, 1].
        size: Side of a tile, in pixels of the input, at least 2.

    Raises:
        UserMistake: If an argument is out of range.
    """

    def __init__(self, alpha: float = 0.15, size: int = 14) -> None:
        super().__init__(alpha)
        if size < 2:
            raise UserMistake(f"size is {size}; a triangle has sides of at least 2 pixels")
        self.size = size

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: a whole tile has to fit."""
        if self.size > image_size:
            raise UserMistake(f"triangles of size {self.size} are larger than the {image_size} x {image_size} input")

    def weighted(self, size: int) -> Tensor:
        """The tiling times alpha."""
        steps = torch.arange(size) % self.size
        tiling = torch.where(steps[:, None] >= steps, 0.4, 0.8)
        return (255 * self.alpha * tiling).expand(3, size, size)
