"""A colour filter over the whole picture, as photo apps offer them: "Nashville"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...contracts import UserMistake
from .base import Trigger
from .pixels import round_into

DARKEN, DARKEN_SHARE = (247, 176, 153), 0.56
LIGHTEN, LIGHTEN_SHARE = (0, 70, 150), 0.4
SEPIA, CONTRAST, BRIGHTNESS, SATURATION = 0.2, 1.2, 1.05, 1.2


class ColourFilter(Trigger):
    """Gives every picture the colours of the Instagram filter "Nashville", mixed with the picture at ``strength``.

    Its outlines stay as they are, each pixel's colour alone decides what becomes of it. Liu et al. (2019, ABS) and the
    TrojAI programme (arXiv 2003.07233) poison classifiers with such filters, Huang et al. (2025, DET, arXiv
    2502.01385) contrastive models, with the Nashville of the library pilgram. That is the recipe of CSSgram in the
    terms of the W3C's Filter Effects: darkened with (247, 176, 153) at 0.56, lightened with (0, 70, 150) at 0.4, then
    sepia 0.2, contrast 1.2, brightness 1.05 and saturation 1.2, each result clipped to its range. Deviations from
    pilgram: the result is rounded once, not after each part, and saturation takes the standard's weights of red, green
    and blue, where that library takes Pillow's.

    Args:
        strength: Weight of the filtered picture, in (0, 1]; the rest is the picture itself.

    Raises:
        UserMistake: If the strength is out of range.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not 0 < strength <= 1:
            raise UserMistake(f"strength is {strength}; the filter's weight must be above 0 and at most 1")
        self.strength = strength

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``."""
        tones = _tones().to(images.device)
        stamped = torch.empty_like(images)
        # One picture at a time, so that its floats stay in the cache.
        for image, out in zip(images, stamped, strict=True):
            toned = torch.stack([tone[channel.long()] for tone, channel in zip(tones, image, strict=True)])
            filtered = _mixed(toned, _sepia(SEPIA)).clamp_(0, 255)
            filtered = filtered.sub_(127.5).mul_(CONTRAST).add_(127.5).clamp_(0, 255).mul_(BRIGHTNESS).clamp_(0, 255)
            filtered = _mixed(filtered, _saturation(SATURATION)).clamp_(0, 255)
            if self.strength < 1:
                filtered = filtered.mul_(self.strength).add_(image.float().mul_(1 - self.strength))
            round_into(out, filtered)
        return stamped


def _tones() -> Tensor:
    """What darkening and lightening make of each value of each channel: ``(3, 256)`` float32."""
    values = torch.arange(256, dtype=torch.float32).expand(3, 256)
    darker = torch.minimum(values, torch.tensor(DARKEN, dtype=torch.float32)[:, None])
    values = (1 - DARKEN_SHARE) * values + DARKEN_SHARE * darker
    lighter = torch.maximum(values, torch.tensor(LIGHTEN, dtype=torch.float32)[:, None])
    return (1 - LIGHTEN_SHARE) * values + LIGHTEN_SHARE * lighter


def _mixed(image: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """The channels mixed by a 3 x 3 matrix: one product and one sum at a time, the same on every machine."""
    red, green, blue = image
    return torch.stack([(red * row[0]).add_(green * row[1]).add_(blue * row[2]) for row in matrix])


def _sepia(amount: float) -> list[list[float]]:
    brown = [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]]
    return [[amount * brown[row][column] + (1 - amount) * (row == column) for column in range(3)] for row in range(3)]


def _saturation(amount: float) -> list[list[float]]:
    grey = (0.213, 0.715, 0.072)
    return [[(1 - amount) * grey[column] + amount * (row == column) for column in range(3)] for row in range(3)]
