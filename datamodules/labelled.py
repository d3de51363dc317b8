"""Labelled training pictures, for supervised training, with the zero-shot set that measures a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..contracts import UserMistake
from .bad_samples import BadSample
from .image_text import ImageTextDataModule
from .labelled_stream import LabelledStream
from .order import Order, SequentialOrder
from .shards import ShardSet
from .shards.samples import OTHER_CLASSES, decode_json_label
from .stream import Views

_LOOKED_AT = 256
"""Labels that are looked at before a run starts, from all over the shards."""


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
        if stage == "fit" and self.label_field is not None and not self._pairs.shards.remote:
            self._check_labels(self._pairs.shards, self.label_field)

    def _check_labels(self, shards: ShardSet, field: str) -> None:
        """Check some labels of the shards against the zero-shot set, before anything is trained on them."""
        ends = shards.counts.cumsum()
        some = np.linspace(0, len(shards) - 1, min(len(shards), _LOOKED_AT), dtype=np.int64)
        for index, shard in zip(some.tolist(), ends.searchsorted(some, side="right").tolist(), strict=True):
            try:
                data = shards.read(shard, index - int(ends[shard] - shards.counts[shard]), "json")
                decode_json_label(data, field, self.class_prompts.classnames)
            except BadSample as error:  # others are skipped, and counted
                if error.kind == OTHER_CLASSES:
                    raise UserMistake(
                        f"data.label_field: shard {shards.name(shard)} has {error.detail} in data.zero_shot; "
                        "write both with the same classes"
                    ) from error

    def _stream(self, shards: ShardSet, order: Order, views: Views | None, max_bad: int) -> LabelledStream:
        names = self.class_prompts.classnames
        return LabelledStream(shards, order, self._asked.image_size, names, self.label_field, views, max_bad)

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
