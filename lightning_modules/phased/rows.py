"""Collect a row of numbers for each pair over a pass, on all ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from ...trainer.all_ranks import all_ranks

_WAITING = 64
"""Batches that stay on the device before they are fetched."""


class PassRows:
    """Collects rows of pairs, such as features, while they stream by. Only now and then is a device waited for."""

    def __init__(self) -> None:
        self._fetched: list[Tensor] = []
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Note the rows of a batch, ``(B, D)``."""
        self._waiting.append(rows.detach())
        if len(self._waiting) >= _WAITING:
            self._fetch()

    def gather(self) -> Tensor:
        """The rows of all ranks, in the order of the ranks: ``(N, D)`` on the CPU, the same on each of them."""
        parts = [rows for rows in all_ranks(self._flat()) if len(rows)]  # those of a rank without pairs have no width
        return torch.cat(parts) if parts else torch.zeros(0, 0)

    def state_dict(self) -> list[Tensor]:
        """What all ranks have noted so far: a checkpoint is one for all of them."""
        return all_ranks(self._flat())

    def load_state_dict(self, state_dict: list[Tensor], rank: int) -> None:
        """Restore what a rank had noted; nothing, where there was no such rank."""
        self._fetched, self._waiting = [rows for rows in state_dict[rank : rank + 1] if len(rows)], []

    def _fetch(self) -> None:
        self._fetched.append(torch.cat(self._waiting).cpu())
        self._waiting = []

    def _flat(self) -> Tensor:
        if self._waiting:
            self._fetch()
        self._fetched = [torch.cat(self._fetched)] if self._fetched else []
        return self._fetched[0] if self._fetched else torch.zeros(0, 0)
