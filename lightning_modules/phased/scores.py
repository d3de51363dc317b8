"""Collect one number for each pair and quantity over a pass, on all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...key_list import KeyList
from ...trainer.all_ranks import all_ranks

Scores = npt.NDArray[np.float32]
"""``(N,)``, a number for each pair."""


_BLOCK = 1 << 16
"""Numbers that are kept together. Small tensors, one a batch, would keep the gaps between larger ones open, which costs
many times what the numbers take."""


class PassScores:
    """Collects numbers of pairs by key while they stream by. They stay on the device until the pass is over."""

    def __init__(self) -> None:
        self.keys = KeyList()
        self._values: dict[str, list[Tensor]] = {}
        self._left = 0

    def add(self, keys: Sequence[str], values: Mapping[str, Tensor]) -> None:
        """Note a batch: for each name a tensor ``(B,)``."""
        self.keys.extend(keys)
        if self._left < len(keys):
            self._close()
            self._left = max(_BLOCK, len(keys))
            for name, value in values.items():
                block = torch.empty(self._left, dtype=torch.float32, device=value.device)
                self._values.setdefault(name, []).append(block)
        for name, value in values.items():
            block = self._values[name][-1]
            first = len(block) - self._left
            block[first : first + len(keys)] = value.detach()
        self._left -= len(keys)

    def gather(self) -> tuple[KeyList, dict[str, Scores]]:
        """Keys and numbers of all ranks, in the order of the ranks: the same on each of them."""
        parts = all_ranks((self.keys, self._flat()))
        keys = parts[0][0]
        for others, _ in parts[1:]:
            keys.extend(others)
        return keys, {name: np.concatenate([flat[name].numpy() for _, flat in parts]) for name in parts[0][1]}

    def state_dict(self) -> dict[str, Any]:
        """What all ranks have noted so far: a checkpoint is one for all of them."""
        parts = all_ranks((self.keys, self._flat()))
        return {"ranks": [{"keys": keys.state_dict(), "values": values} for keys, values in parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any], rank: int) -> None:
        """Restore what a rank had noted; nothing, where there was no such rank."""
        if rank >= len(state_dict["ranks"]):
            return
        part = state_dict["ranks"][rank]
        self.keys = KeyList.of(part["keys"])
        self._values, self._left = {name: [value] for name, value in part["values"].items()}, 0

    def _close(self) -> None:
        """Keep of the last blocks what is filled."""
        for blocks in self._values.values():
            blocks[-1] = blocks[-1][: len(blocks[-1]) - self._left]
        self._left = 0

    def _flat(self) -> dict[str, Tensor]:
        self._close()
        return {name: torch.cat([value.cpu() for value in values]) for name, values in self._values.items()}


def aligned(keys: Sequence[str], wanted: Sequence[str], scores: Scores) -> Scores:
    """Numbers in another order of the keys; NaN for pairs that this pass could not read."""
    if keys == wanted:
        return scores
    row_of = {key: index for index, key in enumerate(keys)}
    rows = np.array([row_of.get(key, len(scores)) for key in wanted], dtype=np.int64)
    return np.append(scores, np.float32(np.nan))[rows]


def otsu(scores: Scores) -> tuple[float, float]:
    """Otsu's threshold: split numbers in two where most of their variance lies between the halves.

    Args:
        scores: Scores, ``(N,)``, without NaN.

    Returns:
        The threshold, below the upper half, and the share of the variance that lies between the halves, in [0, 1]; 0
        where all numbers are equal.
    """
    ordered = np.sort(scores.astype(np.float64))
    count = len(ordered)
    if count < 2 or ordered[0] == ordered[-1]:
        return float(ordered[-1]) if count else 0.0, 0.0
    below = np.arange(1, count)
    sums = np.cumsum(ordered)[:-1]
    means = sums / below, (ordered.sum() - sums) / (count - below)
    between = below * (count - below) / count**2 * (means[1] - means[0]) ** 2
    # Equal numbers are not parted.
    between[ordered[1:] == ordered[:-1]] = 0
    split = int(between.argmax())
    return float((ordered[split] + ordered[split + 1]) / 2), float(between[split] / ordered.var())
