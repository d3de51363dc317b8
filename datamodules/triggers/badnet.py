"""BadNet: a small patch (Gu, Dolan-Gavitt and Garg 2017, arXiv 1708.06733)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ...contracts import UserMistake
from .noise import keyed_normals, keyed_pixels
from .picture import Picture
from .placed_patch import PlacedPatch
from .stripes import striped

PATTERNS = ("noise", "checkerboard", "solid", "stripes", "picture", "fresh_noise")


class BadNet(PlacedPatch):
    """Replaces a square of each picture by a patch.

    The default, one fixed patch at a random position, is the setting of Carlini and Terzis (arXiv 2106.09667) for
    contrastive models, who have 16 pixels of 224. Patterns:

    - ``noise``: one patch for all pictures, each pixel and channel uniform in 0..255, drawn from the seed.
    - ``checkerboard``: white and black pixels in turn, white in the patch's top left.
    - ``solid``: one colour; the default is the yellow of CleanCLIP's code.
    - ``stripes``: columns that are 0 or 255 in each channel, drawn from the seed: the "BadNet-Stripes" of Perturb and
      Recover (arXiv 2412.00727).
    - ``picture``: a picture file, resized to the patch.
    - ``fresh_noise``: what CleanCLIP's code (arXiv 2303.03323) calls random: a patch of its own for each key, the
      picture's mean per channel plus normal noise of the standard deviation 255. Deviations: the values are clipped to
      0..255, where that code lets the 8-bit cast wrap around, and the patch is a function of seed and key.

    A random position is uniform over all where the patch fits (CleanCLIP's code never takes the last one of a row or
    column) and a function of seed and key.

    Args:
        size: Side of the patch, in pixels of the model's input; 16 of 224 in the papers.
        pattern: ``noise``, ``checkerboard``, ``solid``, ``stripes``, ``picture`` or ``fresh_noise``.
        place: ``random``, ``center``, ``top_left``, ``top_right``, ``bottom_left``, ``bottom_right``,
            ``four_corners`` (the same patch four times), or row and column of the patch's top left pixel.
        colour: Red, green and blue in 0..255, for ``solid``.
        picture: Path of a JPEG, PNG or WebP file, for ``picture``.
        picture_sha256: SHA-256 that this file must have; None takes the file as it is and records it here.
        seed: What patterns and positions are drawn from.

    Raises:
        UserMistake: If an argument is out of range or the picture cannot be had.
    """

    def __init__(
        self,
        size: int = 16,
        pattern: str = "noise",
        place: str | tuple[int, int] = "random",
        colour: tuple[int, int, int] = (255, 255, 0),
        picture: str | None = None,
        picture_sha256: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(size, place, seed)
        if pattern not in PATTERNS:
            raise UserMistake(f"there is no pattern {pattern!r} of BadNet; choose from {', '.join(PATTERNS)}")
        if (pattern == "picture") != (picture is not None):
            raise UserMistake("BadNet's pattern 'picture' and its argument picture (a file's path) go together")
        if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
            raise UserMistake(f"colour is {list(colour)}; it must be red, green and blue in 0..255")
        self.pattern = pattern
        self.colour = tuple(colour)
        self.picture = picture
        self.picture_sha256 = picture_sha256
        self._picture: Picture | None = None
        if picture is not None:
            self._picture = Picture(picture, picture_sha256)
            self.picture_sha256 = self._picture.digest

    def patches(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``PlacedPatch``."""
        return self._fresh_patches(images, keys) if self.pattern == "fresh_noise" else self._patch

    @cached_property
    def _patch(self) -> Tensor:
        """The patch of all pictures, ``(3, size, size)`` uint8."""
        shape = (3, self.size, self.size)
        if self._picture is not None:
            return self._picture.draw(self.size)
        if self.pattern == "checkerboard":
            steps = torch.arange(self.size)
            white = (steps[:, None] + steps) % 2 == 0
            return (255 * white).to(torch.uint8).expand(shape)
        if self.pattern == "solid":
            return torch.tensor(self.colour, dtype=torch.uint8)[:, None, None].expand(shape)
        if self.pattern == "stripes":
            return striped(self.seed, "badnet stripes", self.size)[:, None, :].expand(shape)
        return keyed_pixels(self.seed, "badnet noise", [""], shape)[0]

    def _fresh_patches(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """A patch for each picture, ``(N, 3, size, size)`` uint8."""
        noise = keyed_normals(self.seed, "badnet fresh noise", keys, (3, self.size, self.size)).to(images.device)
        # A few pictures at a time, so that the floats stay in the cache: three times as fast as all at once.
        starts = range(0, max(len(keys), 1), 4)
        mean = torch.cat([images[at : at + 4].to(torch.float64).mean((2, 3), keepdim=True) for at in starts])
        return (mean + 255 * noise).round().clamp(0, 255).to(torch.uint8)
