"""Noise that is a pure function of a seed and a key.

It is taken from the raw output of a bit generator, which NumPy keeps the same from release to release; the
distributions of ``numpy.random.Generator`` and of torch carry no such promise, and a manifest has to draw the same
trigger years later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..keyed import keyed_integers


def keyed_bytes(seed: int, purpose: str, keys: Sequence[str], length: int) -> npt.NDArray[np.uint8]:
    """Draw uniform bytes for each key, ``(N, length)``. Arguments as ``keyed_integers``."""
    out = np.empty((len(keys), length), dtype=np.uint8)
    words = -(-length // 8)
    for row, state in zip(out, keyed_integers(seed, purpose, keys, draws=2), strict=True):
        row[:] = np.random.Philox(key=state).random_raw(words).astype("<u8", copy=False).view(np.uint8)[:length]
    return out


def keyed_streams(seed: int, purpose: str, keys: Sequence[str], length: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw uniform bytes, ``(length,)``, for one key after the other. Arguments as ``keyed_integers``.

    For noise as large as the picture: half the time of ``keyed_bytes``, and other draws.
    """
    generator, words = np.random.SFC64(0), -(-length // 8)
    for state in keyed_integers(seed, purpose, keys, draws=3):
        # The digest is the state: seeding, there to separate seeds that are alike, takes a third as long as a draw.
        generator.state = {
            "bit_generator": "SFC64",
            "state": {"state": np.append(state, np.uint64(1))},  # three words and a counter
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield generator.random_raw(words).astype("<u8", copy=False).view(np.uint8)[:length]


def keyed_pixels(seed: int, purpose: str, keys: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Draw pixels, uniform in 0..255, for each key: ``(N, *shape)`` uint8."""
    return torch.from_numpy(keyed_bytes(seed, purpose, keys, prod(shape))).reshape(len(keys), *shape)


def keyed_normals(seed: int, purpose: str, keys: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers for each key: ``(N, *shape)`` float64, from 32 random bits each."""
    words = keyed_bytes(seed, purpose, keys, 4 * prod(shape)).view("<u4")
    # Half a step up: the uniform number is never 0 or 1, where the inverse distribution is infinite.
    uniforms = (words.astype(np.float64) + 0.5) * 2.0**-32
    normals: Tensor = torch.special.ndtri(torch.from_numpy(uniforms))
    return normals.reshape(len(keys), *shape)
