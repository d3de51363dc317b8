"""The interfaces of views: second, augmented versions of the pictures and captions of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class ImageView(ABC):
    """Makes one view of each picture, a function of the picture and its seed alone.

    A view does not depend on the other pictures of the batch, on the worker or on the rank, and leaves the random
    states of the process (torch's, numpy's, Python's) as it finds them. It is picklable, so that it reaches workers.
    """

    def check(self, image_size: int) -> None:
        """Check whether views can be made of pictures of this size, by making one.

        Args:
            image_size: Side S of the input square, in pixels.

        Raises:
            UserMistake: If they cannot, in one line with what would be right.
        """
        self(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8), [0])

    @abstractmethod
    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Make views.

        Args:
            images: Images, ``(N, 3, S, S)`` uint8; not changed.
            seeds: N integers of at most 64 bits, one per picture, drawn afresh each epoch.

        Returns:
            New pictures, ``(N, 3, S, S)`` uint8.
        """


class TextView(ABC):
    """Makes one view of each caption, a function of the caption and its seed alone.

    As ``ImageView``: independent of the batch, without a trace in the random states of the process, and picklable.
    """

    @abstractmethod
    def __call__(self, captions: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Make views.

        Args:
            captions: N captions: any text at all, the empty one included.
            seeds: N integers of at most 64 bits, one per caption, drawn afresh each epoch.

        Returns:
            N captions.
        """
