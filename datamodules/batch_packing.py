"""Pack a batch for its way from a worker to the training process."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LARGE = 1 << 20
"""Bytes from which a tensor is better off in shared memory, which costs a file and two connections for each."""


class _Packed(NamedTuple):
    """A tensor as an array, which goes through the pipe with the rest of its batch."""

    values: npt.NDArray[np.generic]
    """Flat, in the order in which they lie in memory."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def pack(value: Any, least: int = _LARGE) -> Any:
    """Put the large tensors of a batch into shared memory, and pack the small ones.

    Dictionaries are gone through, all else stays as it is. Where the shared memory is full, a large tensor is
    packed too: the thread that would find out when it sends it could only leave the batch out.

    Args:
        value: The batch.
        least: Bytes from which a tensor is large.
    """
    if isinstance(value, dict):
        return {name: pack(part, least) for name, part in value.items()}
    if not isinstance(value, Tensor) or (value.nbytes >= least and _shared(value)):
        return value
    if not value.is_contiguous(memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format):
        value = value.contiguous()
    return _Packed(value.as_strided((value.numel(),), (1,)).numpy(), tuple(value.shape), value.stride())


def _shared(value: Tensor) -> bool:
    """Whether a tensor is in shared memory now."""
    try:
        value.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


def unpack(value: Any) -> Any:
    """What was packed, with the same memory format."""
    if isinstance(value, dict):
        return {name: unpack(part) for name, part in value.items()}
    if isinstance(value, _Packed):
        return torch.from_numpy(value.values).as_strided(value.shape, value.strides)
    return value
