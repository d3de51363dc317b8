"""The optimiser and schedule that all modules share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters into those with weight decay and those without.

    As open_clip and CleanCLIP's code: no decay for gains, biases and the temperature. Deviation: they are told by
    their number of dimensions (below 2), not by their names, which misses the batch norms of a downsampling branch.

    Args:
        module: Whose parameters.
        weight_decay: For the first group.

    Returns:
        Two parameter groups, empty ones left out.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(step: int, warmup_steps: int, total_steps: int) -> float:
    """Factor of the learning rate: linear from 1 / warmup_steps to 1, then a half cosine to 0 at ``total_steps``.

    The first step is not zero and the step after the last one is, so no step is wasted and none climbs back.

    Args:
        step: Number of steps taken, from 0.
        warmup_steps: Steps of the linear part.
        total_steps: Steps of the run.

    Returns:
        In [0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def adamw_with_schedule(
    groups: Iterable[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    warmup_steps: int,
    total_steps: int,
) -> tuple[AdamW, LambdaLR]:
    """Build AdamW over parameter groups with ``warmup_cosine``, to be stepped every optimiser step."""
    # The fused kernel does all parameters in one pass, on the CPU too.
    optimizer = AdamW(list(groups), lr=lr, betas=betas, eps=eps, fused=True)
    return optimizer, LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps))
