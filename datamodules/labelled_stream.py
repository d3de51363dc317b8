"""A worker's batches of labelled training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .order import Order
from .shards import ShardSet
from .shards.samples import decode_json_label, decode_label
from .stream import Sample, ShardStream, Views


class LabelledStream(ShardStream):
    """Batches of training pictures with their class, as ``LabelledBatch``, pictures still in 8 bit.

    Args:
        shards: The pictures, each with a ``.cls`` or a ``.json``, whichever the shards were opened for.
        order: Which of them, in which order.
        image_size: Side S of the input square, in pixels.
        classnames: The names of the classes.
        label_field: Field of the ``.json`` that holds the class index; None where a ``.cls`` does.
        views: The views of a run, of which only the augmentation is used.
        max_bad: See ``ShardStream``.
    """

    any_value = 0

    def __init__(
        self,
        shards: ShardSet,
        order: Order,
        image_size: int,
        classnames: Sequence[str],
        label_field: str | None = None,
        views: Views | None = None,
        max_bad: int = 0,
    ) -> None:
        super().__init__(shards, order, image_size, max_bad)
        self.classnames, self.label_field, self.views = list(classnames), label_field, views or Views()

    def decode_value(self, data: bytes) -> int:
        """The class index."""
        if self.label_field is None:
            return decode_label(data, len(self.classnames))
        return decode_json_label(data, self.label_field, self.classnames)

    def assemble(self, samples: list[Sample], epoch: int) -> dict[str, Any]:
        """Make a training batch."""
        keys, images, augmentation = [sample.key for sample in samples], self.stack(samples), self.views.augmentation
        if augmentation is not None:
            images = augmentation(images, self.views.seeds("augmentation", epoch, keys))
        return {"key": keys, "image": images, "label": torch.tensor([sample.value for sample in samples])}
