"""Features, and losses of them as a formula says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional


def unit(rows: int, dims: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random features ``(rows, dims)`` of unit length."""
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dims, generator=generator, dtype=dtype), dim=-1)


def assert_gradient(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], formula: Callable[[Tensor, Tensor, float], float]
) -> None:
    """Hold the gradient of a loss of features and inverse temperature against the slope of its formula."""
    first, second = unit(4, 3, 0).requires_grad_(), unit(4, 3, 1).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loss(first, second, scale).backward()
    step = 1e-4
    with torch.no_grad():
        for tensor in (first, second, scale):
            assert tensor.grad is not None
            flat, gradient = tensor.view(-1), tensor.grad.view(-1)
            for index in range(flat.numel()):
                flat[index] += step
                above = formula(first, second, float(scale))
                flat[index] -= 2 * step
                below = formula(first, second, float(scale))
                flat[index] += step
                assert float(gradient[index]) == pytest.approx((above - below) / (2 * step), abs=1e-5)
