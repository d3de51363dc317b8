"""Operations that stay in full precision while encoders run in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half-precision numbers as float32; float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def unit_length(features: Tensor) -> Tensor:
    """Features ``(B, D)`` divided by their length, float32 at least."""
    return functional.normalize(at_least_float32(features), dim=-1)


def similarities(rows: Tensor, columns: Tensor, inverse_temperature: Tensor | None = None) -> Tensor:
    """The product of every row with every column, whatever precision surrounds it.

    Under autocast it would be rounded to 8 bits of mantissa (11 in float16), with TF32 its factors to 11, and it is
    then multiplied by up to 100: classes would tie, and gradients of near pairs vanish.

    Args:
        rows: Rows, ``(B, D)``, of unit length.
        columns: Columns, ``(C, D)``, of unit length.
        inverse_temperature: What the cosines are multiplied with, a scalar; None for cosines in [-1, 1].

    Returns:
        ``(B, C)``, float32, or float64 where the features are.
    """
    rows, columns = at_least_float32(rows), at_least_float32(columns)
    with torch.autocast(rows.device.type, enabled=False), _full_products():
        if inverse_temperature is not None:
            rows = at_least_float32(inverse_temperature) * rows
        return rows @ columns.T


@contextmanager
def _full_products() -> Iterator[None]:
    """Inside, float32 factors are not rounded, as TF32 would."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
