"""Features of all ranks, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def gather_features(features: Tensor) -> Tensor:
    """Concatenate the features of all ranks, in the order of the ranks.

    The backward pass sums the gradients that every rank has for a feature. A loss of the gathered features therefore
    has, once DDP has averaged the gradients of the parameters, the gradient of one process on the union of the batches.

    Args:
        features: ``(B, D)``, the same B on every rank.

    Returns:
        ``(world size * B, D)``; ``features`` itself in a single process.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return features
    return torch.cat(all_gather(features))  # type: ignore[no-untyped-call]
