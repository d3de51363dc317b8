"""The weight of a mask's norm in trigger inversion, adapted to the success of the attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AdaptiveCost(nn.Module):
    """The weight of a mask's norm while a trigger is inverted, raised after successes and lowered after failures.

    As in DECREE's official code (``main.py`` at 12306bd), which has it from Neural Cleanse: after more than
    ``patience`` steps of success in a row the weight is multiplied by ``factor``, after as many failures divided by it.
    A weight below ``floor`` is put back to ``initial`` after more than twice as many successes. All of it stays on the
    device.

    Args:
        initial: The weight to begin with.
        factor: Above 1.
        patience: In steps.
        floor: The weight is not divided below it.
        ceiling: The weight is not multiplied above it.

    Attributes:
        value: The weight, a scalar.
    """

    value: Tensor

    def __init__(
        self,
        initial: float = 1e-3,
        factor: float = 5.0,
        patience: int = 5,
        floor: float = 1e-7,
        ceiling: float = 1e5,
    ) -> None:
        super().__init__()
        self.initial, self.factor, self.patience = initial, factor, patience
        self.floor, self.ceiling = floor, ceiling
        self.register_buffer("value", torch.tensor(initial))
        # In a row: successes, failures, and successes at a weight below the floor.
        self.register_buffer("_counts", torch.zeros(3, dtype=torch.int64))

    @torch.no_grad()
    def update(self, success: Tensor) -> None:
        """Note how a step went.

        Args:
            success: Scalar, boolean.
        """
        ups, downs, lows = (self.get_buffer("_counts") + 1).unbind()
        ups, downs, lows = ups * success, downs * ~success, lows * (success & (self.value < self.floor))
        reset = lows > 2 * self.patience
        value = torch.where(reset, self.initial, self.value)
        ups, lows = torch.where(reset, 1, ups), torch.where(reset, 0, lows)
        up, down = ups > self.patience, downs > self.patience
        value = torch.where(up & (value < self.ceiling), value * self.factor, value)
        value = torch.where(down & (value >= self.floor), value / self.factor, value)
        self.value.copy_(value)
        self.get_buffer("_counts").copy_(torch.stack([ups * ~up, downs * ~down, lows]))
