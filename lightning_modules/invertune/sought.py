"""Optimise images by Adam while the encoder is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor


class SoughtPixels:
    """Tensors in [0, 1] that Adam optimises. They belong to no module, so no optimiser of the run moves them.

    Args:
        start: Their first values, by name.
        lr: Learning rate of Adam, constant.
        device: Where they lie.
    """

    def __init__(self, start: Mapping[str, Tensor], lr: float, device: torch.device) -> None:
        self.values = {name: value.to(device).detach().clone().requires_grad_() for name, value in start.items()}
        self.steps = 0
        """How many were taken."""
        self._adam = torch.optim.Adam(list(self.values.values()), lr=lr)

    def step(self, loss: Tensor, trainer: Trainer) -> None:
        """Take a step down a loss, with the mean gradient of all ranks, and stay in [0, 1].

        Args:
            loss: Scalar, of ``values`` as they are. Nothing else gets a gradient.
            trainer: Trainer of the run.
        """
        values = list(self.values.values())
        for value, gradient in zip(values, torch.autograd.grad(loss, values), strict=True):
            value.grad = trainer.strategy.reduce(gradient, reduce_op="mean")
        self._adam.step()
        self.steps += 1
        with torch.no_grad():
            for value in values:
                value.clamp_(0, 1)

    def found(self) -> dict[str, Tensor]:
        """The values as they are now, on the CPU."""
        return {name: value.detach().float().cpu().clone() for name, value in self.values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Values and moments."""
        return {"values": self.found(), "steps": self.steps, "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume with them."""
        with torch.no_grad():
            for name, value in state_dict["values"].items():
                self.values[name].copy_(value)
        self.steps = state_dict["steps"]
        self._adam.load_state_dict(state_dict["adam"])
