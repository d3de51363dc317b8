"""AutoAugment for many pictures at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

_BINS = 10
"""Steps of a magnitude, as in the paper."""

Operation = tuple[str, float]
"""What torchvision calls the operation, and its signed magnitude."""


def auto_augment(transform: v2.AutoAugment, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """What torchvision's AutoAugment (arXiv 1805.09501) gives for each picture after ``torch.manual_seed(seed)``.

    The draws are made picture by picture; then all pictures that drew an operation with the same magnitude go through
    it together. A policy has about twenty different ones, so a batch of 128 takes a quarter of the time.

    Args:
        transform: Has the policy and, in torchvision's own code, the operations.
        images: Images, ``(N, 3, S, S)`` uint8; not changed.
        seeds: N seeds.

    Returns:
        ``(N, 3, S, S)`` uint8, in the memory format of ``images``.
    """
    generator = torch.Generator()
    rounds: tuple[defaultdict[Operation, list[int]], ...] = (defaultdict(list), defaultdict(list))
    size = (images.shape[-2], images.shape[-1])
    for row, seed in zip(range(len(images)), seeds, strict=True):
        for operations, drawn in zip(rounds, _draw(transform, generator.manual_seed(int(seed)), size), strict=True):
            if drawn is not None:
                operations[drawn].append(row)
    # Picture by picture in memory, as the operations like it.
    views = images.clone(memory_format=torch.contiguous_format)
    for operations in rounds:
        for (name, magnitude), rows in operations.items():
            chosen = torch.tensor(rows)
            changed = transform._apply_image_or_video_transform(
                views.index_select(0, chosen), name, magnitude, transform.interpolation, transform._fill
            )
            views.index_copy_(0, chosen, changed)
    return torch.empty_like(images).copy_(views)


def _draw(transform: v2.AutoAugment, generator: torch.Generator, size: tuple[int, int]) -> list[Operation | None]:
    """The two operations of a picture, None for one that is passed over; from the draws that torchvision makes."""
    policy = transform._policies[int(torch.randint(len(transform._policies), (), generator=generator))]
    chances = iter(torch.rand(2 * len(policy), generator=generator).tolist())
    drawn: list[Operation | None] = []
    for name, probability, step in policy:
        # torchvision compares in float32.
        if next(chances) > np.float32(probability):
            drawn.append(None)
            continue
        magnitude, signed = _magnitude(name, step, size)
        drawn.append((name, -magnitude if signed and next(chances) <= 0.5 else magnitude))
    return drawn


@cache
def _magnitude(name: str, step: int | None, size: tuple[int, int]) -> tuple[float, bool]:
    """The magnitude of a step, 0 for an operation without one, and whether its sign is drawn."""
    magnitudes, signed = v2.AutoAugment._AUGMENTATION_SPACE[name]
    steps = magnitudes(_BINS, *size)
    return (0.0, False) if steps is None else (float(steps[step]), signed)
