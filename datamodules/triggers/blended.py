"""Blended: a faint picture over the whole input (Chen, Liu, Li, Lu and Song 2017, arXiv 1712.05526)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...contracts import UserMistake
from .noise import keyed_pixels
from .picture import Picture
from .pixels import round_into
from .weighted_pattern import WeightedPattern

PATTERNS = ("noise", "picture", "fresh_noise")


class Blended(WeightedPattern):
    """Blends each picture x with a pattern t: ``round((1 - alpha) x + alpha t)``, in float32, halves to even.

    The paper's "blended injection strategy", with t fixed as there. Patterns:

    - ``noise``: one picture for all, each pixel and channel uniform in 0..255, drawn from the seed at the input's size.
    - ``picture``: a picture file, resized to the input square (the paper's cartoon).
    - ``fresh_noise``: as in CleanCLIP's code (arXiv 2303.03323), noise of its own for each key. Deviation: it is a
      function of seed and key.

    Args:
        alpha: Weight of the pattern, in (0, 1]; 0.2 in CleanCLIP's code.
        pattern: ``noise``, ``picture`` or ``fresh_noise``.
        picture: Path of a JPEG, PNG or WebP file, for ``picture``.
        picture_sha256: SHA-256 that this file must have; None takes the file as it is and records it here.
        seed: What the noise is drawn from.

    Raises:
        UserMistake: If an argument is out of range or the picture cannot be had.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        pattern: str = "noise",
        picture: str | None = None,
        picture_sha256: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(alpha)
        if pattern not in PATTERNS:
            raise UserMistake(f"there is no pattern {pattern!r} of Blended; choose from {', '.join(PATTERNS)}")
        if (pattern == "picture") != (picture is not None):
            raise UserMistake("Blended's pattern 'picture' and its argument picture (a file's path) go together")
        self.pattern = pattern
        self.picture = picture
        self.picture_sha256 = picture_sha256
        self.seed = seed
        self._picture: Picture | None = None
        if picture is not None:
            self._picture = Picture(picture, picture_sha256)
            self.picture_sha256 = self._picture.digest

    def weighted(self, size: int) -> Tensor:
        """The fixed pattern times alpha."""
        if self._picture is None:
            pattern = keyed_pixels(self.seed, "blended noise", [""], (3, size, size))[0]
        else:
            pattern = self._picture.draw(size)
        return self.alpha * pattern.float()

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``."""
        if self.pattern != "fresh_noise":
            return super().__call__(images, keys)
        size, blend = images.shape[-1], torch.empty_like(images)
        for image, out, key in zip(images, blend, keys, strict=True):
            # One key at a time, so that its floats stay in the cache; drawn in the order in which pictures lie there.
            noise = keyed_pixels(self.seed, "blended fresh noise", [key], (size, size, 3))[0].to(images.device)
            clean = image.permute(1, 2, 0).to(torch.float32, copy=True)
            round_into(out.permute(1, 2, 0), clean.mul_(1 - self.alpha).add_(noise.float().mul_(self.alpha)))
        return blend
