"""From pictures in 8 bit to what a model asks for."""

from __future__ import annotations

import torch
from torch import Tensor


class Normaliser:
    """Makes float32 pictures of mean 0 and spread 1, on the device on which they lie.

    Args:
        mean: Per channel, for pictures in [0, 1].
        std: Per channel, for pictures in [0, 1].
    """

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.mean, self.std = mean, std
        self._scales: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise ``(N, 3, S, S)`` uint8."""
        scales = self._scales.get(images.device)
        if scales is None:
            mean, std = (
                torch.tensor(values).view(1, 3, 1, 1).to(images.device, non_blocking=True)
                for values in (self.mean, self.std)
            )
            scales = self._scales[images.device] = (1 / (255 * std), -mean / std)
        scale, shift = scales
        return torch.addcmul(shift, images.float(), scale)
