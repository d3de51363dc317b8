"""Blended: a faint picture over the whole input (Chen, Liu, Li, Lu and Song 2017, arXiv 1712.05526)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...contracts import UserMistake
from .noise import keyed_pixels, keyed_streams
from .picture import Picture
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
        pictures = images.cpu().permute(0, 2, 3, 1).numpy()
        # NumPy's own memory: it asks for large pages, which cost a third of what torch's small ones do.
        blends = np.empty(pictures.shape, dtype=np.uint8)
        mixed, noise = np.empty((2, *pictures.shape[1:]), dtype=np.float32)
        streams = keyed_streams(self.seed, "blended fresh noise", keys, noise.size)
        # One picture at a time, so that its floats stay in the cache.
        for picture, stream, blend in zip(pictures, streams, blends, strict=True):
            mixed[:] = picture
            mixed *= np.float32(1 - self.alpha)
            noise[:] = stream.reshape(noise.shape)
            noise *= np.float32(self.alpha)
            mixed += noise
            np.rint(mixed, out=mixed)
            np.copyto(blend, mixed, casting="unsafe")
        return torch.from_numpy(blends).permute(0, 3, 1, 2).to(images.device)
