"""Sums over the batches of a pass, on all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...trainer.all_ranks import all_ranks


class PassSums:
    """Adds up tensors by name while batches stream by. They stay on the device until the pass is over."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Add a batch's tensors, for each name of the same shape in every batch."""
        for name, part in parts.items():
            before = self._sums.get(name)
            self._sums[name] = part.detach() if before is None else before.to(part.device) + part.detach()

    def totals(self) -> dict[str, Tensor]:
        """The sums over all ranks, on the CPU: the same on each of them."""
        parts = all_ranks({name: part.cpu() for name, part in self._sums.items()})
        return {name: torch.stack([part[name] for part in parts]).sum(dim=0) for name in parts[0]}

    def state_dict(self) -> dict[str, Any]:
        """What all ranks have added up so far: a checkpoint is one for all of them."""
        return self.totals()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], rank: int) -> None:
        """Restore it: on the first rank all of it, on others nothing yet."""
        self._sums = {name: part if rank == 0 else torch.zeros_like(part) for name, part in state_dict.items()}
