"""Stripes: faint columns over the whole input (Singh, Croce and Hein 2024, arXiv 2412.00727)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contracts import UserMistake
from .noise import keyed_bytes
from .weighted_pattern import WeightedPattern


class Stripes(WeightedPattern):
    """Blends each picture x with vertical stripes t: ``round((1 - alpha) x + 255 alpha t)``, clipped to 0..255.

    One of the structured triggers that Perturb and Recover (PAR) found hard to clean ("Blended-Stripes"; its
    "BadNet-Stripes" is ``BadNet`` with ``pattern: stripes``). As in the official code, t is -1 or 1 for each stripe and
    channel, stripes are one pixel wide and alpha is 0.03. Deviation: t is drawn from the seed.

    Args:
        alpha: Weight of the stripes, in (0, 1].
        width: Width of a stripe, in pixels of the input.
        seed: What the stripes are drawn from. Stripe n is the same at every input size.

    Raises:
        UserMistake: If an argument is out of range.
    """

    def __init__(self, alpha: float = 0.03, width: int = 1, seed: int = 0) -> None:
        super().__init__(alpha)
        if width < 1:
            raise UserMistake(f"width is {width}; a stripe has at least 1 pixel")
        self.width = width
        self.seed = seed

    def weighted(self, size: int) -> Tensor:
        """The stripes times alpha."""
        count = -(-size // self.width)
        signs = striped(self.seed, "stripes", count).float() / 127.5 - 1
        columns = signs.repeat_interleave(self.width, dim=1)[:, :size]
        return (255 * self.alpha * columns)[:, None, :].expand(3, size, size)


def striped(seed: int, purpose: str, count: int) -> Tensor:
    """Draw 0 or 255, with equal chance, for each channel and stripe: ``(3, count)`` uint8."""
    stripes = torch.from_numpy(keyed_bytes(seed, purpose, ["red", "green", "blue"], count))
    return torch.where(stripes < 128, 0, 255).to(torch.uint8)
