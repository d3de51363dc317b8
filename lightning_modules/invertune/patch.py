"""A universal patch on a picture."""

from __future__ import annotations

import math

from torch import Tensor

_INSET = 14 / 224
"""How far from the lower and the right edge the patch lies, as a share of the side: as in the official code."""


def patch_side(share: float, side: int) -> int:
    """The side of a square patch that covers a share of a square picture, in pixels: at least one, as in the code."""
    return max(1, math.isqrt(int(share * side * side)))


def with_patch(images: Tensor, patch: Tensor) -> Tensor:
    """Pictures with a square in their lower right corner, a sixteenth of the side off the edges.

    Args:
        images: Images, ``(B, 3, S, S)``.
        patch: Patch, ``(3, P, P)``, of the same scale.
    """
    side, size = images.shape[-1], patch.shape[-1]
    start = max(0, side - round(_INSET * side) - size)
    stamped = images.clone()
    stamped[:, :, start : start + size, start : start + size] = patch.to(images.dtype)
    return stamped
