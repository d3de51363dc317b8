"""Watermark: a half transparent mark in a corner, as picture agencies put it on their pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contracts import UserMistake
from .fixed_pattern import FixedPattern, Stamp
from .placed_patch import CORNERS

SUBPIXELS = 8
"""A pixel's cover is counted on a grid of 8 x 8 points."""


class Watermark(FixedPattern):
    """Blends a copyright sign, white on a black disc, into a corner: ``round((1 - alpha m) x + alpha m c)``.

    m is the share of a pixel that the disc covers, c the sign's 255 where it is drawn and 0 beside it, so that the mark
    is seen on light and dark pictures. Blending as in Chen et al. (2017, arXiv 1712.05526), at one position and with
    soft edges. Scraped data hold such marks without any attack, which is why it is here. The shape is computed: no file
    or font is needed.

    Args:
        size: Diameter of the disc, in pixels of the model's input.
        alpha: Weight of the mark, in (0, 1].
        place: ``top_left``, ``top_right``, ``bottom_left`` or ``bottom_right``.
        margin: Pixels between the disc and both edges of its corner.

    Raises:
        UserMistake: If an argument is out of range.
    """

    def __init__(self, size: int = 64, alpha: float = 0.5, place: str = "bottom_right", margin: int = 8) -> None:
        super().__init__()
        if size < 4:
            raise UserMistake(f"size is {size}; a watermark has a diameter of at least 4 pixels")
        if not 0 < alpha <= 1:
            raise UserMistake(f"alpha is {alpha}; the watermark's weight must be above 0 and at most 1")
        if place not in CORNERS:
            raise UserMistake(f"there is no place {place!r} of Watermark; choose from {', '.join(CORNERS)}")
        if margin < 0:
            raise UserMistake(f"margin is {margin}; it must be at least 0")
        self.size = size
        self.alpha = alpha
        self.place = place
        self.margin = margin

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: the disc and its margin have to fit."""
        if self.size + self.margin > image_size:
            raise UserMistake(
                f"a watermark of size {self.size} with a margin of {self.margin} is larger than the "
                f"{image_size} x {image_size} input"
            )

    def draw(self, size: int) -> Stamp:
        """The disc as a scale, the sign on it as an offset."""
        disc, sign = (self.alpha * part for part in _mark(self.size))
        low, high = CORNERS[self.place]
        free = size - self.size
        top, left = (abs(end * free - self.margin) for end in (low, high))
        scale, offset = torch.ones(size, size), torch.zeros(size, size)
        here = (slice(top, top + self.size), slice(left, left + self.size))
        scale[here] -= disc
        offset[here] = 255 * sign
        return Stamp(scale.expand(3, size, size), offset.expand(3, size, size))


def _mark(size: int) -> tuple[Tensor, Tensor]:
    """The share of each pixel that is disc, and that is sign: two of ``(size, size)``, float32 in [0, 1]."""
    points = size * SUBPIXELS
    across = (2 * torch.arange(points, dtype=torch.float64) + 1 - points) / points
    x, y = across[None, :], across[:, None]
    radius = (x * x + y * y).sqrt()
    disc = radius <= 1
    letter = (radius >= 0.32) & (radius <= 0.56) & ((x <= 0) | (y.abs() >= 0.7 * x))
    sign = (disc & (radius >= 0.8)) | letter
    disc_share, sign_share = (
        part.to(torch.float32).reshape(size, SUBPIXELS, size, SUBPIXELS).mean((1, 3)) for part in (disc, sign)
    )
    return disc_share, sign_share
