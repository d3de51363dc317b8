"""Features of all ranks, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


class _AllGather(torch.autograd.Function):
    """All ranks' rows forward; backward, the sum over ranks of the gradients of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.rows = len(features)
        parts = [torch.empty_like(features) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        start = ctx.rows * distributed.get_rank()
        return summed[start : start + ctx.rows]


def several_ranks() -> bool:
    """Whether there is anyone to gather from."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather_features(features: Tensor) -> Tensor:
    """Concatenate the features of all ranks, in the order of the ranks.

    The backward pass sums the gradients that every rank has for a feature. A loss of the gathered features therefore
    has, once DDP has averaged the gradients of the parameters, the gradient of one process on the union of the batches.
    So has a loss of some rows of each rank, where the mean over ranks is the loss of the union.

    Args:
        features: Features, ``(B, D)``, the same B on every rank.

    Returns:
        ``(world size * B, D)``; ``features`` itself in a single process.
    """
    if not several_ranks():
        return features
    gathered: Tensor = _AllGather.apply(features)
    return gathered


def own_rows(rows: int, device: torch.device) -> Tensor:
    """Where this rank's ``rows`` features are among the gathered ones: ``(rows,)`` int64."""
    start = rows * distributed.get_rank()
    return torch.arange(start, start + rows, device=device)


def mean_over_ranks(loss: Tensor) -> Tensor:
    """The mean of a scalar over ranks, with the gradient of this rank's own: DDP averages the gradients itself."""
    if not several_ranks():
        return loss
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    return loss + (mean / distributed.get_world_size() - loss.detach())
