"""WaNet: a smooth warp of the whole picture (Nguyen and Tran 2021, arXiv 2102.10369)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ...contracts import UserMistake
from .base import Trigger
from .noise import keyed_bytes, keyed_streams
from .resampling import UNITS, Positions, resample

_STEPS = 16
"""Positions to a pixel, in each direction, in the noise mode: two draws are a byte."""


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

    Deviations: positions are the nearest multiples of 1 / 32 pixel, in the noise mode one of the 16 multiples of
    1 / 16 pixel within half a pixel, which makes the arithmetic of the pixels exact, so that any machine draws the
    same; field and noise are drawn from the seed. What is not followed: the grids that CleanCLIP's, PAR's and other
    CLIP repositories ship have k = S, so that nothing is enlarged: an independent draw for each pixel, which is no
    smooth warp.

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
        self._positions: dict[int, Positions] = {}
        self._ranges: dict[int, _Ranges] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the positions, which are large and drawn again where they are needed."""
        return self.__dict__ | {"_positions": {}, "_ranges": {}}

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: the field is enlarged, never reduced."""
        if self.k > image_size:
            raise UserMistake(f"WaNet's k {self.k} is larger than the {image_size} x {image_size} input")

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``."""
        size = images.shape[-1]
        self.check(size)
        fields = self._shaken(size, keys) if self.noise else repeat(self._nearest(size), len(keys))
        pictures = np.ascontiguousarray(images.cpu().permute(0, 2, 3, 1).numpy())
        warped = np.empty_like(pictures)
        for picture, positions, out in zip(pictures, fields, warped, strict=True):
            resample(picture, positions, out)
        return torch.from_numpy(warped).permute(0, 3, 1, 2).to(images.device)

    def _draw(self, size: int) -> npt.NDArray[np.float64]:
        """Column and row that each pixel is taken from, in units: ``(2, size, size)``."""
        words = keyed_bytes(self.seed, "wanet field", [""], 4 * 2 * self.k**2).view("<u4")
        field = torch.from_numpy(2 * (words.astype(np.float64) + 0.5) * 2.0**-32 - 1).view(1, 2, self.k, self.k)
        field = field / field.abs().mean()
        large = functional.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)[0]
        # From coordinates that span 2 to pixels; row before column, as the draws are.
        moves = self.s * large / size * (size - 1) / 2
        pixels = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
        return ((pixels + moves) * UNITS).clamp(0, (size - 1) * UNITS).flip(0).numpy()

    def _nearest(self, size: int) -> Positions:
        """The positions next to those of the field."""
        if size not in self._positions:
            columns, rows = np.rint(self._draw(size)).astype(np.int32)
            corners = np.stack((columns // UNITS, rows // UNITS), axis=-1).astype(np.int16)
            shares = (columns % UNITS + UNITS * (rows % UNITS)).astype(np.uint16)
            self._positions[size] = Positions(corners, shares)
        return self._positions[size]

    def _shaken(self, size: int, keys: Sequence[str]) -> Iterator[Positions]:
        """The positions of the noise mode for one key after the other; each is overwritten by the next."""
        if size not in self._ranges:
            self._ranges[size] = _Ranges.around(self._draw(size))
        left, upper, right_of, below = self._ranges[size]
        corners = np.empty((size, size, 2), dtype=np.int16)
        for stream in keyed_streams(self.seed, "wanet noise", keys, size * size):
            # Of 16 positions in a row each has another share of the pixel: it is the share that is drawn, to the right
            # in the lower half of a byte and down in the upper one, and the pixel follows from it.
            draws = stream.reshape(size, size)
            columns = left + ((draws & (_STEPS - 1)) < right_of)
            cv2.merge((columns, upper + (draws < below)), dst=corners)
            shares = (draws & np.uint8(256 - _STEPS)).astype(np.uint16)
            shares += draws
            shares *= UNITS // _STEPS
            yield Positions(corners, shares)


class _Ranges(NamedTuple):
    """For each pixel, the 16 positions in each direction that are within half a pixel of the field's, ``(S, S)``."""

    left: npt.NDArray[np.int16]
    """The pixel of the first of them."""
    upper: npt.NDArray[np.int16]
    right_of: npt.NDArray[np.uint8]
    """Its share of the pixel, in 16ths: positions with a smaller one are in the pixel after."""
    below: npt.NDArray[np.uint8]
    """The same downwards, times 16."""

    @classmethod
    def around(cls, field: npt.NDArray[np.float64]) -> _Ranges:
        """Those of a field in units, ``(2, S, S)``."""
        first = np.ceil(field * (_STEPS / UNITS) - _STEPS / 2).astype(np.int32)
        left, upper = (first // _STEPS).astype(np.int16)
        right_of, below = (first % _STEPS).astype(np.uint8)
        return cls(left, upper, right_of, below * np.uint8(_STEPS))
