"""How a batch travels from a worker to the process that trains."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LARGE = 1 << 20
"""Bytes from which a tensor is better off in shared memory, which costs a file and two connections for each."""


class _Parcel(NamedTuple):
    """A tensor as an array, which goes through the pipe with the rest of its batch."""

    values: npt.NDArray[np.generic]
    """Flat, in the order in which they lie in memory."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def pack(value: Any) -> Any:
    """Make parcels of the small tensors of a batch: dictionaries are gone through, all else stays as it is."""
    if isinstance(value, dict):
        return {name: pack(part) for name, part in value.items()}
    if not isinstance(value, Tensor) or value.nbytes >= _LARGE:
        return value
    if not value.is_contiguous(memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format):
        value = value.contiguous()
    return _Parcel(value.as_strided((value.numel(),), (1,)).numpy(), tuple(value.shape), value.stride())


def unpack(value: Any) -> Any:
    """What was packed, with the same memory format."""
    if isinstance(value, dict):
        return {name: unpack(part) for name, part in value.items()}
    if isinstance(value, _Parcel):
        return torch.from_numpy(value.values).as_strided(value.shape, value.strides)
    return value
