"""Pictures taken apart at given positions: bilinear interpolation in fixed point, by OpenCV."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

UNITS = 32
"""Positions are multiples of 1 / 32 pixel: what OpenCV has 8-bit pictures interpolated at."""

_SHARED_FROM = 1 << 16
"""OpenCV gives pictures of more pixels than this to threads of its own, which a forked worker waits for in vain."""


class Positions(NamedTuple):
    """Where each pixel is taken from, as OpenCV's fixed-point maps have it."""

    corners: npt.NDArray[np.int16]
    """Column and row of the pixel to the upper left, ``(S, S, 2)``; beyond the border, the border's pixel is meant."""
    shares: npt.NDArray[np.uint16]
    """Units from there to the right, and ``UNITS`` times the units down, ``(S, S)``."""


def resample(picture: npt.NDArray[np.uint8], positions: Positions, out: npt.NDArray[np.uint8]) -> None:
    """Interpolate a picture, halves rounded up.

    All of it is arithmetic of integers, with weights that are exact: any machine draws the same pixels.

    Args:
        picture: Picture, ``(S, S, 3)``.
        positions: Where each output pixel is read, ``(S, S)`` of them.
        out: What is written, ``(S, S, 3)``.
    """
    rows = max(1, _SHARED_FROM // len(picture))
    for top in range(0, len(picture), rows):
        band = slice(top, top + rows)
        cv2.remap(
            picture,
            positions.corners[band],
            positions.shares[band],
            cv2.INTER_LINEAR,
            dst=out[band],
            borderMode=cv2.BORDER_REPLICATE,
        )
