"""Gentle changes of a picture, by which a second witness distinguishes an object from a trigger."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .transplants import blurred

Change = Callable[[Tensor], Tensor]
"""Pictures ``(B, 3, S, S)``, normalised, to changed ones."""
_BEND = 3 / 128
"""How far a warp moves a pixel on average, as a share of the side."""
_CUT = 1 / 8
"""What a crop takes off each side."""


def grey(images: Tensor) -> Tensor:
    """Pictures ``(B, 3, S, S)`` without their colours."""
    return images.mean(dim=1, keepdim=True).expand_as(images)


def cropped(images: Tensor) -> Tensor:
    """The middle of each picture ``(B, 3, S, S)``, at its size."""
    side = images.shape[-1]
    cut = round(_CUT * side)
    middle = images[..., cut : side - cut, cut : side - cut]
    return functional.interpolate(middle, size=side, mode="bilinear", align_corners=False)


def warped(images: Tensor, seed: int) -> Tensor:
    """Pictures ``(B, 3, S, S)``, all bent by one smooth field, as an elastic one of WaNet's (arXiv 2102.10369)."""
    side = images.shape[-1]
    drawn = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    field = functional.interpolate(drawn, size=side, mode="bicubic", align_corners=True)
    field = field / field.abs().mean() * 2 * _BEND  # a side is 2 wide
    straight = functional.affine_grid(torch.eye(2, 3)[None], [1, 3, side, side], align_corners=True)
    grid = (straight + field.permute(0, 2, 3, 1)).to(images.device, images.dtype)
    return functional.grid_sample(
        images, grid.expand(len(images), -1, -1, -1), padding_mode="border", align_corners=True
    )


GENTLE: tuple[Change, ...] = (
    grey,
    cropped,
    lambda images: warped(images, 0),
    lambda images: warped(images, 1),
    lambda images: blurred(images, 1 / 32),
)
"""Changes that leave an object what it is and most triggers not."""
