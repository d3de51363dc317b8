"""Labelled training pictures, for supervised training, with the zero-shot set that measures a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..contracts import UserMistake
from .image_text import ImageTextDataModule
from .labelled_stream import LabelledStream
from .order import Order, SequentialOrder
from .shards import ShardSet
from .stream import Views


class LabelledDataModule(ImageTextDataModule):
    """Streams labelled pictures as ``LabelledBatch``, in the order and with the guards of ``ImageTextDataModule``.

    A label is an index into the class names of the zero-shot set, which is needed to fit too. It stands in a picture's
    ``.cls`` (CLIP-benchmark's layout, ``train/N.tar``) or in a field of its ``.json`` (img2dataset's layout).

    Args:
        label_field: Field of the ``.json`` that holds the class index; None where a ``.cls`` does.

    Raises:
        UserMistake: If what only pairs have is asked for: poison or second views.
    """

    def __init__(self, *args: Any, label_field: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.poison is not None:
            raise UserMistake("data.poison: labelled pictures are not poisoned; data.attack says what is measured")
        if self._views.image is not None or self._views.text is not None:
            raise UserMistake("data: labelled pictures have no second views; data.augmentation changes the pictures")
        self.label_field = label_field

    @property
    def batch_names(self) -> frozenset[str]:
        """What a training batch has."""
        return frozenset({"key", "image", "label"})

    def setup(self, stage: str) -> None:
        """As ``ImageTextDataModule``.

        Raises:
            UserMistake: If anything that the user gave is missing or does not fit, or similarities are asked for.
        """
        stage = str(getattr(stage, "value", stage))
        if stage == "predict":
            raise UserMistake("predict scores image-text pairs: use ImageTextDataModule as data")
        if self.zero_shot is None:
            raise UserMistake(f"{stage} needs data.zero_shot: labels are indices into its class names")
        super().setup(stage)

    def _stream(self, shards: ShardSet, order: Order, views: Views | None, max_bad: int) -> LabelledStream:
        classes = len(self.class_prompts.classnames)
        return LabelledStream(shards, order, self._asked.image_size, classes, self.label_field, views, max_bad)

    def _shown(self, keys: Sequence[str]) -> tuple[Tensor, list[str]]:
        shards = self._pairs.shards
        stream = self._stream(shards, SequentialOrder(shards.counts, len(keys)), None, 0)
        samples = stream.read_keys(keys)
        return stream.stack(samples), [self.class_prompts.classnames[sample.value] for sample in samples]

    @property
    def _member(self) -> str:
        return "cls" if self.label_field is None else "json"

    @property
    def _hint(self) -> str:
        return "; data.label_field says where the label stands"
