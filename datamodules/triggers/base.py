"""The interface of a trigger: a pure function on 8-bit pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...contracts import UserMistake
from ..arguments import kept_arguments


class Trigger(ABC):
    """Stamps pictures that already are the model's input square, before augmentation and normalisation.

    A subclass keeps each argument of its constructor, plain data only, in an attribute of the same name: they are what
    the manifest records and what draws the same trigger again. Whatever is random is a function of ``seed`` and, where
    it differs from picture to picture, of the picture's key.
    """

    @property
    def params(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data."""
        return kept_arguments(self)

    def check(self, image_size: int) -> None:  # noqa: B027  a trigger that fits everywhere has nothing to say
        """Check whether the trigger can be drawn.

        Args:
            image_size: Side of the input square, in pixels.

        Raises:
            UserMistake: If it cannot, in one line with what would be right.
        """

    def check_promises(self, image_size: int) -> None:
        """Check whether the trigger can be drawn, keeps its arguments, and returns new pictures of the right kind.

        Args:
            image_size: Side of the input square, in pixels.

        Raises:
            UserMistake: If it does not.
        """
        self.check(image_size)
        kept_arguments(self)
        images = torch.full((2, 3, image_size, image_size), 127, dtype=torch.uint8)
        given = images.clone()
        stamped = self(given, ["0", "1"])
        name = type(self).__name__
        if not torch.equal(given, images):
            raise UserMistake(f"{name} changes the pictures that it is given; it has to return new ones")
        if not isinstance(stamped, Tensor) or (stamped.dtype, stamped.shape) != (images.dtype, images.shape):
            kind = f"{stamped.dtype} {tuple(stamped.shape)}" if isinstance(stamped, Tensor) else type(stamped).__name__
            raise UserMistake(f"{name} makes {kind} of pictures; it has to return torch.uint8 {tuple(images.shape)}")

    @abstractmethod
    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Stamp pictures.

        Args:
            images: Images, ``(N, 3, S, S)`` uint8; not changed.
            keys: The N keys of the pictures.

        Returns:
            New pictures, ``(N, 3, S, S)`` uint8.
        """
