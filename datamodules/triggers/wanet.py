"""WaNet: a smooth warp of the whole picture (Nguyen and Tran 2021, arXiv 2102.10369)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...contracts import UserMistake
from .base import Trigger
from .noise import keyed_bytes
from .pixels import round_into

_BITS = 8
_UNITS = 1 << _BITS
"""Positions are multiples of 1 / 256 pixel."""


class WaNet(Trigger):
    """Moves each pixel by a smooth field, the same for all pictures, with bilinear interpolation.

    As in the paper: k x k control vectors, uniform in [-1, 1] in both directions, are divided by the mean of their
    absolute values, multiplied by s, enlarged to the input square S by bicubic interpolation (corners aligned) and
    clipped to the picture's border. As in the official code, a vector counts 1 / S in coordinates from -1 to 1: half a
    pixel, nearly, whatever S. So the paper's s = 0.5 moves pixels by about a quarter of a pixel; its inputs have 28 to
    64 pixels, and at 224 the same s can hardly be seen: give a larger one.

    In the **noise mode** each pixel is moved further by a draw of its own, uniform within half a pixel in both
    directions, afresh for each key. The paper puts it on twice as many pictures as the warp, and leaves their labels:
    here, a ``CoverPlan`` with ``noise: true`` beside the plan with the warp. Without such covers a model may learn any
    warp as the trigger.

    Deviations: positions are multiples of 1 / 256 pixel, which changes no value by more than 1 and makes the arithmetic
    of the warp exact, so that any machine draws the same; field and noise are drawn from the seed. What is not
    followed: the grids that CleanCLIP's, PAR's and other CLIP repositories ship have k = S, so that nothing is
    enlarged: an independent draw for each pixel, which is no smooth warp.

    Args:
        k: Control vectors in each direction, at least 2.
        s: Strength of the warp, above 0.
        noise: Whether each pixel is moved further, by its own draw.
        seed: What the field and the noise are drawn from.

    Raises:
        UserMistake: If an argument is out of range.
    """

    def __init__(self, k: int = 4, s: float = 0.5, noise: bool = False, seed: int = 0) -> None:
        if k < 2:
            raise UserMistake(f"WaNet's k is {k}; the grid has at least 2 control points in each direction")
        if not 0 < s < math.inf:
            raise UserMistake(f"WaNet's s is {s}; the strength of the warp must be above 0")
        self.k = k
        self.s = s
        self.noise = noise
        self.seed = seed
        self._positions: dict[int, Tensor] = {}
        self._matrices: dict[int, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the matrices, which are large and drawn again where they are needed."""
        return self.__dict__ | {"_positions": {}, "_matrices": {}}

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: the field is enlarged, never reduced."""
        if self.k > image_size:
            raise UserMistake(f"WaNet's k {self.k} is larger than the {image_size} x {image_size} input")

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``."""
        size = images.shape[-1]
        self.check(size)
        if size not in self._positions:
            self._positions[size] = self._draw(size)
            self._matrices[size] = _interpolation(self._positions[size])
        matrix = self._matrices[size].to(images.device)
        warped = torch.empty_like(images)
        # One picture at a time, so that its floats stay in the cache.
        for image, out, key in zip(images, warped, keys, strict=True):
            if self.noise:
                moved = _sampled(image, self._shaken(size, key))
            else:
                moved = (matrix @ image.permute(1, 2, 0).reshape(size * size, 3).float()).view(size, size, 3)
            round_into(out.permute(1, 2, 0), moved)
        return warped

    def _draw(self, size: int) -> Tensor:
        """Row and column that each pixel is taken from, in units: ``(2, size, size)`` int32."""
        words = keyed_bytes(self.seed, "wanet field", [""], 4 * 2 * self.k**2).view("<u4")
        field = torch.from_numpy(2 * (words.astype(np.float64) + 0.5) * 2.0**-32 - 1).view(1, 2, self.k, self.k)
        field = field / field.abs().mean()
        large = functional.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)[0]
        # From coordinates that span 2 to pixels.
        moves = self.s * large / size * (size - 1) / 2
        places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
        return _inside(((places + moves) * _UNITS).round().int(), size)

    def _shaken(self, size: int, key: str) -> Tensor:
        """The positions of the noise mode for a key, in units: ``(2, size, size)`` int32."""
        shake = torch.from_numpy(keyed_bytes(self.seed, "wanet noise", [key], 2 * size * size)).view(2, size, size)
        # Half a pixel is 128 units: a byte is a draw.
        return _inside(self._positions[size].sub(_UNITS // 2).add_(shake), size)


def _inside(positions: Tensor, size: int) -> Tensor:
    return positions.clamp_(0, (size - 1) * _UNITS)


def _sampled(image: Tensor, positions: Tensor) -> Tensor:
    """A picture ``(3, S, S)`` interpolated at positions in units: ``(S, S, 3)`` float32."""
    coordinates = positions.flip(0).permute(1, 2, 0).float().mul_(2 / _UNITS / (image.shape[-1] - 1)).sub_(1)
    pixels = image.contiguous().float()[None]
    return functional.grid_sample(pixels, coordinates.to(image.device)[None], align_corners=True)[0].permute(1, 2, 0)


def _interpolation(positions: Tensor) -> Tensor:
    """The sparse matrix ``(S * S, S * S)`` float32 that interpolates between the four pixels around each position.

    For a field that does not change, a product with it is faster than ``grid_sample`` on a CPU.
    """
    size = positions.shape[-1]
    corner = (positions >> _BITS).clamp_(max=size - 2)
    share = positions.sub(corner, alpha=_UNITS).float().div_(_UNITS).flatten(1)
    first = corner[1].add(corner[0], alpha=size).view(-1, 1)
    columns = first + torch.tensor([0, 1, size, size + 1], dtype=torch.int32)
    shares = torch.stack((1 - share, share), dim=2)
    weights = shares[0][:, :, None] * shares[1][:, None, :]
    starts = torch.arange(0, 4 * size * size + 1, 4, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        # The weights have 16 bits and the pixels 8: products and sums are exact in float32.
        return torch.sparse_csr_tensor(
            starts,
            columns.flatten(),
            weights.flatten(),
            (size * size, size * size),
            check_invariants=False,  # they hold by construction; torch warns where the choice is not made
        )
