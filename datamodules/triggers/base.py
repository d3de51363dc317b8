"""The interface of a trigger: a pure function on 8-bit pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..arguments import constructor_arguments


class Trigger(ABC):
    """Stamps pictures that already are the model's input square, before augmentation and normalisation.

    A subclass keeps each argument of its constructor, plain data only, in an attribute of the same name: they are what
    the manifest records and what draws the same trigger again. Whatever is random is a function of ``seed`` and, where
    it differs from picture to picture, of the picture's key.
    """

    @property
    def params(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data."""
        return {name: getattr(self, name) for name in constructor_arguments(type(self))}

    def check(self, image_size: int) -> None:  # noqa: B027  a trigger that fits everywhere has nothing to say
        """Check whether the trigger can be drawn.

        Args:
            image_size: Side of the input square, in pixels.

        Raises:
            UserMistake: If it cannot, in one line with what would be right.
        """

    @abstractmethod
    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Stamp pictures.

        Args:
            images: Images, ``(N, 3, S, S)`` uint8; not changed.
            keys: The N keys of the pictures.

        Returns:
            New pictures, ``(N, 3, S, S)`` uint8.
        """
