"""The optimiser and schedule that all modules share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..contracts import UserMistake


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split trainable parameters into those with weight decay and those without.

    As open_clip and CleanCLIP's code: no decay for gains, biases and the temperature. Deviation: they are recognised by
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


def warmup_cosine(step: int, warmup_steps: int, total_steps: int | None) -> float:
    """Factor of the learning rate: linear from 1 / warmup_steps to 1, then a half cosine to 0 at ``total_steps``.

    The first step is not zero and the step after the last one is, so no step is wasted and none climbs back.

    Args:
        step: Number of steps taken, from 0.
        warmup_steps: Steps of the linear part.
        total_steps: Steps of the run; None where no end is known: the factor then stays 1.

    Returns:
        In [0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if total_steps is None:
        return 1.0
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def known_steps(trainer: Trainer) -> int | None:
    """Steps of the optimiser in a run; None where only a time limit ends it, or nothing."""
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        rank_zero_warn(
            "Neither trainer.max_epochs nor trainer.max_steps ends this run: the learning rate stays at its peak after "
            "the warm-up, as a cosine needs an end"
        )
        return None
    return int(steps)


def adamw(
    groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, trainer: Trainer | None = None
) -> AdamW:
    """Build AdamW over parameter groups, for how a trainer runs it.

    Args:
        groups: Parameter groups, as PyTorch optimisers take them.
        lr: Learning rate.
        betas: AdamW's decay rates of the running averages of the gradient and its square, in [0, 1).
        eps: Added to the denominator of AdamW's update.
        trainer: Whose gradient clipping and precision are looked at; None where there is none.

    Raises:
        UserMistake: If there is no parameter to train.
    """
    groups = list(groups)
    if not groups:
        raise UserMistake("no parameter of the module is trained: all of them have requires_grad false")
    # The fused kernel does all parameters in one pass, on the CPU too.
    optimizer = AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    if trainer is not None and trainer.gradient_clip_val:
        # In float16 the fused kernel takes the scale off the gradients by itself, where it has this mark, and clipping
        # would come before: Lightning refuses that, in bfloat16 too. Without the mark the scaler does it first.
        optimizer._step_supports_amp_scaling = False  # torch reads it so
    if any(parameter.dtype == torch.float16 for group in optimizer.param_groups for parameter in group["params"]):
        rank_zero_warn(
            "trainer.precision is 16-true: AdamW's second moments of small gradients vanish in float16, and its steps "
            "are too large for it. bf16-true takes as little memory and has the range; 16-mixed keeps float32 weights"
        )
    return optimizer


def with_schedule(optimizer: Optimizer, warmup_steps: int, total_steps: int | None) -> LambdaLR:
    """``warmup_cosine`` of an optimiser, stepped with it; a run too short for the warm-up is told."""
    if total_steps is not None and 0 < total_steps < warmup_steps:
        rank_zero_info(
            f"model.warmup_steps is {warmup_steps:,} and the run has {total_steps:,} steps: the learning rate gets to "
            f"{total_steps / warmup_steps:.2g} of model.lr, and no further"
        )
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, total_steps))
