"""Randomness that is a pure function of a seed and a sample's key.

A draw does not depend on the epoch, the worker, the rank or the order of the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt


def keyed_integers(seed: int, purpose: str, keys: Sequence[str], draws: int = 1) -> npt.NDArray[np.uint64]:
    """Draw uniform 64-bit integers for each key.

    Args:
        seed: Any integer.
        purpose: What the draw is for, so that two uses of one seed and key are independent.
        keys: N keys.
        draws: Number of integers per key, at most 8.

    Returns:
        ``(N, draws)`` uint64.
    """
    # The salt separates seeds and purposes; the digest of the key under it is what is drawn.
    salt = blake2b(f"{seed}:{purpose}".encode(), digest_size=64).digest()
    size = 8 * draws
    digests = b"".join(
        blake2b(key.encode("utf-8", "surrogatepass"), key=salt, digest_size=size).digest() for key in keys
    )
    return np.frombuffer(digests, dtype="<u8").reshape(len(keys), draws)


def keyed_uniforms(seed: int, purpose: str, keys: Sequence[str], draws: int = 1) -> npt.NDArray[np.float64]:
    """Draw uniform numbers in [0, 1) for each key: ``(N, draws)`` float64. Arguments as ``keyed_integers``."""
    return (keyed_integers(seed, purpose, keys, draws) >> np.uint64(11)).astype(np.float64) * 2.0**-53
