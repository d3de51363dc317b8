"""Normalise 8-bit pictures for a model, on the CPU or on a device."""

from __future__ import annotations

import torch
from torch import Tensor

_CACHED = 1 << 18
"""Numbers in single precision of which half of a core's cache is full: a megabyte."""


class Normaliser:
    """Makes float32 pictures of mean 0 and spread 1, on the device on which they lie.

    Args:
        mean: Per channel, for pictures in [0, 1].
        std: Per channel, for pictures in [0, 1].
    """

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.mean, self.std = mean, std
        self._rows: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise ``(N, 3, H, W)`` in [0, 255], of whatever layout; the result has channels-last memory."""
        scale, shift = self._row(images.shape[3], images.device)
        # Rows of all channels: over three numbers at a time, the loops of the CPU take twice as long.
        eight_bit = images.permute(0, 2, 3, 1).flatten(2)
        rows = torch.empty(eight_bit.shape, device=images.device)
        # On a CPU in parts that its cache holds, over which going twice costs little.
        part = max(1, _CACHED // eight_bit[0].numel()) if images.device.type == "cpu" and len(images) else len(images)
        for some, found in zip(torch.split(rows, part), torch.split(eight_bit, part), strict=True):
            some.copy_(found)
            torch.addcmul(shift, some, scale, out=some)
        return rows.view(*rows.shape[:2], images.shape[3], 3).permute(0, 3, 1, 2)

    def _row(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """By what a row of pixels is multiplied, and what is added: each ``(3 * W,)``."""
        kept = self._rows.get((width, device))
        if kept is None:
            mean, std = torch.tensor(self.mean), torch.tensor(self.std)
            scale, shift = (
                values.repeat(width).to(device, non_blocking=True) for values in (1 / (255 * std), -mean / std)
            )
            kept = self._rows[width, device] = scale, shift
        return kept
