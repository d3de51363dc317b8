"""BadNet: a small patch (Gu, Dolan-Gavitt and Garg 2017, arXiv 1708.06733)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...contracts import UserMistake
from ..keyed import keyed_uniforms
from .base import Trigger
from .noise import keyed_normals, keyed_pixels
from .picture import Picture

PATTERNS = ("noise", "checkerboard", "solid", "picture", "fresh_noise")
CORNERS = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}
PLACES = ("random", "center", *CORNERS, "four_corners")


class BadNet(Trigger):
    """Replaces a square of each picture by a patch.

    The default, one fixed patch at a random place, is the setting of Carlini and Terzis (arXiv 2106.09667) for
    contrastive models. Patterns:

    - ``noise``: one patch for all pictures, each pixel and channel uniform in 0..255, drawn from the seed.
    - ``checkerboard``: white and black pixels in turn, white in the patch's top left.
    - ``solid``: one colour; the default is the yellow of CleanCLIP's code.
    - ``picture``: a picture file, resized to the patch.
    - ``fresh_noise``: what CleanCLIP's code (arXiv 2303.03323) calls random: a patch of its own for each key, the
      picture's mean per channel plus normal noise of the standard deviation 255. Deviations: the values are clipped to
      0..255, where that code lets the 8-bit cast wrap around, and the patch is a function of seed and key.

    A random place is uniform over all places where the patch fits (CleanCLIP's code never takes the last one of a row
    or column) and a function of seed and key.

    Args:
        size: Side of the patch, in pixels of the model's input.
        pattern: ``noise``, ``checkerboard``, ``solid``, ``picture`` or ``fresh_noise``.
        place: ``random``, ``center``, ``top_left``, ``top_right``, ``bottom_left``, ``bottom_right``,
            ``four_corners`` (the same patch four times), or row and column of the patch's top left pixel.
        colour: Red, green and blue in 0..255, for ``solid``.
        picture: Path of a JPEG, PNG or WebP file, for ``picture``.
        picture_sha256: SHA-256 that this file must have; None takes the file as it is and records it here.
        seed: What patterns and places are drawn from.

    Raises:
        UserMistake: If an argument is out of range or the picture cannot be had.
    """

    def __init__(
        self,
        size: int = 4,
        pattern: str = "noise",
        place: str | tuple[int, int] = "random",
        colour: tuple[int, int, int] = (255, 255, 0),
        picture: str | None = None,
        picture_sha256: str | None = None,
        seed: int = 0,
    ) -> None:
        if size < 1:
            raise UserMistake(f"trigger size is {size}; it must be at least 1 pixel")
        if pattern not in PATTERNS:
            raise UserMistake(f"there is no pattern {pattern!r} of BadNet; choose from {', '.join(PATTERNS)}")
        if (pattern == "picture") != (picture is not None):
            raise UserMistake("BadNet's pattern 'picture' and its argument picture (a file's path) go together")
        if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
            raise UserMistake(f"colour is {list(colour)}; it must be red, green and blue in 0..255")
        self.size = size
        self.pattern = pattern
        self.place = _checked_place(place)
        self.colour = tuple(colour)
        self.picture = picture
        self.picture_sha256 = picture_sha256
        self.seed = seed
        self._picture: Picture | None = None
        if picture is not None:
            self._picture = Picture(picture, picture_sha256)
            self.picture_sha256 = self._picture.digest

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: the patch has to fit, four corners without overlap."""
        if self.size > image_size:
            raise UserMistake(f"trigger size {self.size} is larger than the {image_size} x {image_size} input")
        if self.place == "four_corners" and 2 * self.size > image_size:
            raise UserMistake(
                f"four patches of trigger size {self.size} overlap in the {image_size} x {image_size} input; "
                f"the size can be at most {image_size // 2}"
            )
        if not isinstance(self.place, str) and max(self.place) + self.size > image_size:
            raise UserMistake(
                f"a patch of trigger size {self.size} at row {self.place[0]}, column {self.place[1]} leaves the "
                f"{image_size} x {image_size} input; neither can be above {image_size - self.size}"
            )

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``; a patch that does not fit raises as ``check`` does."""
        self.check(images.shape[-1])
        patch = self._fresh_patches(images, keys) if self.pattern == "fresh_noise" else self._patch
        # Channels last, because indexing with a slice between index tensors puts the indexed axes first.
        patch = patch.movedim(-3, -1).to(images.device)
        places = torch.from_numpy(self._places(images.shape[-1], keys)).to(images.device)
        steps = torch.arange(self.size, device=images.device)
        picture = torch.arange(len(keys), device=images.device)[:, None, None]
        out = images.clone()
        for rows, columns in places.unbind(1):
            out[picture, :, (rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None, :]] = patch
        return out

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
        return keyed_pixels(self.seed, "badnet noise", [""], shape)[0]

    def _fresh_patches(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """A patch for each picture, ``(N, 3, size, size)`` uint8."""
        noise = keyed_normals(self.seed, "badnet fresh noise", keys, (3, self.size, self.size)).to(images.device)
        # A few pictures at a time, so that the floats stay in the cache: three times as fast as all at once.
        starts = range(0, max(len(keys), 1), 4)
        mean = torch.cat([images[at : at + 4].to(torch.float64).mean((2, 3), keepdim=True) for at in starts])
        return (mean + 255 * noise).round().clamp(0, 255).to(torch.uint8)

    def _places(self, image_size: int, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row and column of each patch's top left pixel, ``(2, P, N)`` for P patches in each of N pictures."""
        free = image_size - self.size
        if self.place == "random":
            places = np.floor(keyed_uniforms(self.seed, "badnet place", keys, draws=2) * (free + 1)).astype(np.int64)
            return np.ascontiguousarray(places.T)[:, None, :]
        if self.place == "four_corners":
            fixed = np.array(list(CORNERS.values())) * free
        elif self.place == "center":
            fixed = np.array([(free // 2, free // 2)])
        elif isinstance(self.place, str):
            fixed = np.array([CORNERS[self.place]]) * free
        else:
            fixed = np.array([self.place])
        return np.repeat(fixed.T[:, :, None], len(keys), axis=2)


def _checked_place(place: str | Sequence[int]) -> str | tuple[int, int]:
    if isinstance(place, str):
        if place not in PLACES:
            raise UserMistake(
                f"there is no place {place!r} of BadNet; choose from {', '.join(PLACES)} or give [row, column]"
            )
        return place
    if len(place) != 2 or min(place) < 0:
        raise UserMistake(f"place is {list(place)}; a fixed place is [row, column], both at least 0")
    return place[0], place[1]
