"""Triggers that replace a square of each picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...contracts import UserMistake
from ..keyed import keyed_uniforms
from .base import Trigger

CORNERS = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}
PLACES = ("random", "center", *CORNERS, "four_corners")


class PlacedPatch(Trigger):
    """Replaces a square of each picture by a patch. A subclass says what the patch shows.

    A random position is uniform over all where the patch fits and a function of seed and key.

    Args:
        size: Side of the patch, in pixels of the model's input.
        place: ``random``, ``center``, ``top_left``, ``top_right``, ``bottom_left``, ``bottom_right``,
            ``four_corners`` (the same patch four times), or row and column of the patch's top left pixel.
        seed: What random positions are drawn from.

    Raises:
        UserMistake: If there is no such size or place.
    """

    def __init__(self, size: int, place: str | tuple[int, int], seed: int) -> None:
        if size < 1:
            raise UserMistake(f"trigger size is {size}; it must be at least 1 pixel")
        self.size = size
        self.place = _checked_place(place, type(self).__name__)
        self.seed = seed

    @abstractmethod
    def patches(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """What is shown: ``(3, size, size)`` uint8 for all pictures, or ``(N, 3, size, size)``, one for each."""

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
        # Channels last, because indexing with a slice between index tensors puts the indexed axes first.
        patch = self.patches(images, keys).movedim(-3, -1).to(images.device)
        corners = torch.from_numpy(self._corners(images.shape[-1], keys)).to(images.device)
        steps = torch.arange(self.size, device=images.device)
        picture = torch.arange(len(keys), device=images.device)[:, None, None]
        out = images.clone()
        for rows, columns in corners.unbind(1):
            out[picture, :, (rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None, :]] = patch
        return out

    def _corners(self, image_size: int, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row and column of each patch's top left pixel, ``(2, P, N)`` for P patches in each of N pictures."""
        free = image_size - self.size
        if self.place == "random":
            # Every patch trigger draws as BadNet does: the purpose is part of what a manifest stands for.
            corners = np.floor(keyed_uniforms(self.seed, "badnet place", keys, draws=2) * (free + 1)).astype(np.int64)
            return np.ascontiguousarray(corners.T)[:, None, :]
        if self.place == "four_corners":
            fixed = np.array(list(CORNERS.values())) * free
        elif self.place == "center":
            fixed = np.array([(free // 2, free // 2)])
        elif isinstance(self.place, str):
            fixed = np.array([CORNERS[self.place]]) * free
        else:
            fixed = np.array([self.place])
        return np.repeat(fixed.T[:, :, None], len(keys), axis=2)


def _checked_place(place: str | Sequence[int], trigger: str) -> str | tuple[int, int]:
    if isinstance(place, str):
        if place not in PLACES:
            raise UserMistake(
                f"there is no place {place!r} of {trigger}; choose from {', '.join(PLACES)} or give [row, column]"
            )
        return place
    if len(place) != 2 or min(place) < 0:
        raise UserMistake(f"place is {list(place)}; a fixed place is [row, column], both at least 0")
    return place[0], place[1]
