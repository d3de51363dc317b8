"""Image views drawn by torchvision."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from ...contracts import UserMistake
from .auto_augment import auto_augment
from .base import ImageView


class TransformView(ImageView):
    """Any transform of torchvision's ``transforms.v2``, drawn for each picture under its own seed.

    The view is what the transform gives for the picture after ``torch.manual_seed(seed)``. CleanCLIP
    (arXiv 2303.03323) uses AutoAugment (arXiv 1805.09501) with its ImageNet policy, then the evaluation transform.

    torchvision's AutoAugment itself goes through its operations for all pictures at once, with the same result; any
    other transform is called picture by picture.

    Deviations from the official code: AutoAugment sees the 8-bit input square, where theirs sees the picture before
    resizing and cropping; and it works on tensors, where theirs works on PIL pictures: under 1 % of the values differ
    by more than rounding (tensors take a tenth less time at 32 pixels and a tenth more at 224).

    Args:
        transform: Takes a ``(3, S, S)`` uint8 tensor and returns one of the same shape and type. None: torchvision's
            AutoAugment with the ImageNet policy.
    """

    def __init__(self, transform: nn.Module | Callable[[Tensor], Tensor] | None = None) -> None:
        self.transform: Callable[[Tensor], Tensor] = v2.AutoAugment() if transform is None else transform

    def check(self, image_size: int) -> None:
        """Make a view of a black picture; whatever the transform raises becomes a ``UserMistake``."""
        try:
            super().check(image_size)
        except UserMistake:
            raise
        except Exception as error:
            raise UserMistake(
                f"the image view {self._name} fails on a uint8 picture of (3, {image_size}, {image_size}): {error}"
            ) from error

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Make views.

        Raises:
            UserMistake: If the transform changes the shape or the type of a picture.
        """
        # A subclass may do otherwise.
        if type(self.transform) is v2.AutoAugment:
            return auto_augment(self.transform, images, seeds)
        views: list[Tensor] = []
        with _random_states_kept():
            # A copy, because a transform may work in place.
            for image, seed in zip(images.clone(), seeds, strict=True):
                _seed_all(int(seed))
                view = self.transform(image)
                if not isinstance(view, Tensor) or view.dtype != torch.uint8 or view.shape != image.shape:
                    raise UserMistake(
                        f"the image view {self._name} returns {_describe(view)} for {_describe(image)}; it must keep "
                        f"shape and type, because pictures are normalised after it"
                    )
                views.append(view)
        return torch.stack(views) if views else images.clone()

    @property
    def _name(self) -> str:
        return getattr(self.transform, "__name__", type(self.transform).__name__)


def _seed_all(seed: int) -> None:
    # torch.manual_seed would seed every accelerator too: 100 times slower, and not undone by _random_states_kept.
    torch.default_generator.manual_seed(seed)
    # torchvision draws from torch alone; another callable may not.
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    torch_state = torch.default_generator.get_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.default_generator.set_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
