"""No trigger on pictures, for plans whose trigger is in the caption."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import Trigger


class NoTrigger(Trigger):
    """Leaves pictures as they are, for plans whose trigger is a text."""

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """See ``Trigger``."""
        return images.clone()
