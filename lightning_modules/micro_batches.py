"""Batches larger than memory, with the gradient of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .batch_norm import RunningStatisticsKept


def in_micro_batches(encode: Callable[[Tensor], Tensor], inputs: Tensor, size: int, module: nn.Module) -> Tensor:
    """Encode a batch, keeping the activations of one micro-batch at a time.

    Cached features (GradCache, Gao et al., arXiv 2101.06983; BASIC, Pham et al., arXiv 2111.10050; open_clip's
    ``accum_freq``): a first pass gives the features of all micro-batches, on which the loss is computed whole. Its
    gradient for the features of a micro-batch then goes through a second pass of that micro-batch, which makes the
    activations again. Written as activation checkpointing of the encoder, a micro-batch at a time, it is the same sum,
    works for any loss of the features, and is one backward pass: gradients are synchronised over ranks once, and
    scaled, accumulated and clipped as they would be.

    The gradient is exactly that of the loss of these features:

    - An encoder without batch norm gives the features, and the gradient, of the whole batch at once.
    - Batch norm in training has the statistics of each micro-batch (ghost batch norm, Hoffer et al., arXiv 1705.08741),
      as if the batch were that of as many ranks. The second pass has the same, so that the gradient is exact for these
      features, though they are not those of a whole batch. Running statistics move once for each micro-batch, in the
      first pass. In evaluation mode the features are those of the whole batch.
    - Dropout draws in the second pass what it drew in the first.

    Args:
        encode: Maps inputs ``(B, ...)`` to features ``(B, D)``.
        inputs: Inputs of the whole batch, ``(B, ...)``.
        size: Most rows of a micro-batch; the batch is divided as evenly as can be.
        module: What encodes, for its batch norms.

    Returns:
        ``(B, D)``.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), RunningStatisticsKept(module)

    features = []
    for part in torch.tensor_split(inputs, -(-len(inputs) // size)):
        features.append(checkpoint(encode, part, use_reentrant=False, context_fn=contexts))
        # Autocast keeps half-precision copies of the weights. Shared by the micro-batches, they would sum up gradients
        # in half precision; with copies of its own, each adds to the float32 gradient.
        torch.clear_autocast_cache()
    return torch.cat(features)
