"""Operations that stay in full precision while encoders run in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    """The product of every row with every column, whatever precision surrounds it, and so are its gradients.

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
    if inverse_temperature is not None:
        rows = at_least_float32(inverse_temperature) * rows
    product: Tensor = _FullProduct.apply(rows, columns)
    return product


class _FullProduct(torch.autograd.Function):
    """``rows @ columns.T``, forwards and backwards in the precision of its factors."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        with _full_products(rows.device.type):
            return rows @ columns.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, columns = ctx.saved_tensors
        with _full_products(rows.device.type):
            of_rows = gradient @ columns if ctx.needs_input_grad[0] else None
            return of_rows, gradient.T @ rows if ctx.needs_input_grad[1] else None


@contextmanager
def _full_products(device: str) -> Iterator[None]:
    """Inside, factors are rounded neither by autocast nor as TF32 would."""
    try:
        before, full, put = torch.get_float32_matmul_precision(), "highest", torch.set_float32_matmul_precision
    except RuntimeError:  # the program has set it by its newer name, and torch lets nobody mix the two
        before, full, put = torch.backends.cuda.matmul.fp32_precision, "ieee", _put_by_newer_name
    put(full)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        put(before)


def _put_by_newer_name(precision: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision
