"""Triggers that do the same arithmetic to every picture, whatever its key."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .base import Trigger
from .pixels import round_into


class Stamp(NamedTuple):
    """What becomes of a picture x: ``round(scale * x + offset)``, clipped to 0..255."""

    scale: float | Tensor
    """A number, or ``(3, S, S)`` float32."""
    offset: Tensor
    """``(3, S, S)`` float32."""


class FixedPattern(Trigger):
    """Stamps ``round(scale * x + offset)`` in float32, halves to even, clipped to 0..255.

    A subclass says what scale and offset are at an input size; they are drawn once for each size.
    """

    def __init__(self) -> None:
        self._stamps: dict[int, Stamp] = {}

    @abstractmethod
    def draw(self, size: int) -> Stamp:
        """Scale and offset for an input square of this side, in pixels."""

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``."""
        size = images.shape[-1]
        if size not in self._stamps:
            self.check(size)
            scale, offset = self.draw(size)
            self._stamps[size] = Stamp(
                _channels_last(scale) if isinstance(scale, Tensor) else scale, _channels_last(offset)
            )
        scale, offset = self._stamps[size]
        if isinstance(scale, Tensor):
            scale = scale.to(images.device)
        offset = offset.to(images.device)
        stamped = torch.empty_like(images)
        # One picture at a time, so that its floats stay in the cache: several times as fast as all at once.
        for image, out in zip(images, stamped, strict=True):
            round_into(out, image.to(torch.float32, copy=True).mul_(scale).add_(offset).clamp_(0, 255))
        return stamped


def _channels_last(pattern: Tensor) -> Tensor:
    """The same ``(3, S, S)`` in the memory order in which pictures leave a decoder, where arithmetic is fastest."""
    return pattern.permute(1, 2, 0).contiguous().permute(2, 0, 1)
