"""A share of pictures, counted without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Rate(Metric):
    """Share of the counted pictures that are hits, in [0, 1]; NaN where no picture counts.

    ``torchmetrics.MeanMetric`` would do, but it looks for NaN on the host at every update and, with that switched off,
    ignores its weights (1.9). Integers are exact and sum over ranks whatever the size of the last batches.
    """

    full_state_update = False

    hits: Tensor
    counted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("counted", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, hits: Tensor, counts: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            hits: Which pictures are hits, ``(B,)`` bool.
            counts: Which pictures are counted, ``(B,)`` bool; all unless given.
        """
        counts = torch.ones_like(hits) if counts is None else counts
        self.hits += (hits & counts).sum()
        self.counted += counts.sum()

    def compute(self) -> Tensor:
        """The share of hits over all ranks, a float32 scalar."""
        return self.hits / self.counted
