"""The tokens of every caption, in a few bytes a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...trainer.all_ranks import all_ranks

_WAITING = 64
"""Batches that stay on the device before they are looked at."""
_STRETCH = 10_000
"""Captions whose tokens are counted at once."""


class CaptionTokens:
    """Which tokens each caption has, collected over a pass: four bytes a token.

    Args:
        tokenize: N captions to ``(N, L)`` int64 tokens.

    Attributes:
        padding: The token that follows a caption.
        special: Tokens of an empty caption, ``(T,)`` int64: start, end and padding.
    """

    def __init__(self, tokenize: Callable[[Sequence[str]], Tensor]) -> None:
        # Beside a longer caption, so that the empty one is padded.
        empty = tokenize(["", "a a a a"])[0]
        self.padding = int(empty[-1])
        self.special = torch.tensor(sorted(set(empty.tolist())))
        self._waiting: list[Tensor] = []
        self._tokens: list[npt.NDArray[np.int32]] = []
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._ends: npt.NDArray[np.int64] | None = None

    def add(self, tokens: Tensor) -> None:
        """Note the captions of a batch, ``(B, L)`` int64. Only now and then is a device waited for."""
        self._waiting.append(tokens.to(torch.int32))
        self._ends = None
        if len(self._waiting) >= _WAITING:
            self._take()

    def gather(self) -> None:
        """Concatenate the captions of all ranks, in the order of the ranks."""
        parts = all_ranks(self.state_dict())
        self.load_state_dict({name: torch.cat([part[name] for part in parts]) for name in ("tokens", "lengths")})

    def shares(self) -> npt.NDArray[np.float64]:
        """By token, the share of captions that have it: ``(V,)`` with V above the largest token that occurs."""
        tokens, ends = self._flat()
        if not len(tokens):
            return np.zeros(1)
        counts = np.zeros(int(tokens.max()) + 1)
        # In stretches of whole captions, so that no copy of all tokens is sorted.
        for first in range(0, len(ends), _STRETCH):
            lengths = self._lengths[0][first : first + _STRETCH]
            start = int(ends[first - 1]) if first else 0
            rows = np.repeat(np.arange(len(lengths)), lengths)
            pairs = np.unique(rows << 32 | tokens[start : start + len(rows)])
            counts += np.bincount(pairs & 0xFFFFFFFF, minlength=len(counts))
        return counts / len(ends)

    def having(self, tokens: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which captions have any of some tokens: ``(N,)``."""
        every, ends = self._flat()
        found = np.zeros(len(ends), dtype=bool)
        found[ends.searchsorted(np.flatnonzero(np.isin(every, tokens)), side="right")] = True
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        self._take()
        tokens, lengths = (np.concatenate([np.zeros(0, np.int32), *parts]) for parts in (self._tokens, self._lengths))
        return {"tokens": torch.from_numpy(tokens), "lengths": torch.from_numpy(lengths)}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self._waiting = []
        self._tokens, self._lengths = [state_dict["tokens"].numpy()], [state_dict["lengths"].numpy()]
        self._ends = None

    def _flat(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """All tokens, and for each caption where its own end."""
        if self._ends is None:
            self.load_state_dict(self.state_dict())
            self._ends = np.cumsum(self._lengths[0], dtype=np.int64)
        return self._tokens[0], self._ends

    def _take(self) -> None:
        """Keep what waits, without special tokens and padding."""
        if not self._waiting:
            return
        waiting = [tokens.cpu() for tokens in self._waiting]
        content = [~torch.isin(tokens, self.special) for tokens in waiting]
        self._tokens.append(torch.cat([tokens[has] for tokens, has in zip(waiting, content, strict=True)]).numpy())
        self._lengths.append(torch.cat([has.sum(dim=1, dtype=torch.int32) for has in content]).numpy())
        self._waiting = []
