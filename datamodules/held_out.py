"""Pairs that a model was not trained on, clean and under each attack, for retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..contracts import HeldOutBatch, Preprocessing, UserMistake
from ..files.reading import shown
from .bad_samples import BadSampleLog
from .measured import on_pairs
from .order import SequentialOrder
from .phrase import phrase_pattern
from .poisoning import PoisonPlan
from .shards import ShardSet
from .shards.same_files import first_in_both
from .stream import ImageTextStream, Sample


class HeldOutPairs:
    """Pairs for retrieval.

    Args:
        shards: They.
        bad_samples: Counts those that are skipped.
    """

    def __init__(self, shards: ShardSet, bad_samples: BadSampleLog) -> None:
        self.shards, self._bad_samples = shards, bad_samples

    def check_kept_out(self, train: Iterable[str]) -> None:
        """Check that no shard is trained on.

        Args:
            train: Paths and URLs of the training shards.

        Raises:
            UserMistake: If one is, by whatever path.
        """
        both = first_in_both(self.shards.paths, train)
        if both is not None:
            raise UserMistake(
                f"data.held_out has {shown(both)}, which is among data.train_shards too: retrieval is measured on "
                "pairs that are kept out of training"
            )

    def batches(
        self,
        plans: Mapping[str, PoisonPlan],
        preprocessing: Preprocessing,
        normalise: Callable[[Tensor], Tensor],
        batch_size: int,
    ) -> Iterator[HeldOutBatch]:
        """Read pairs in the order of their shards; what is broken is skipped. Of several captions the first is shown.

        Args:
            plans: What is measured, by name. Those that pairs cannot show are left out (``on_pairs``).
            preprocessing: What the model asks for.
            normalise: Makes ``(N, 3, S, S)`` float of pictures in 8 bit.
            batch_size: Pairs of a batch.

        Raises:
            UserMistake: If too many pairs are broken, or all, or a shard cannot be read.
        """
        self._bad_samples.reset()
        shown_plans, limit = on_pairs(plans, preprocessing.image_size), self._bad_samples.limit
        pairs = 0
        for item in _HeldOutStream(self.shards, batch_size, preprocessing, shown_plans, limit):
            self._bad_samples.add(item.bad)
            if item.failure:
                raise UserMistake(item.failure)
            if item.batch:
                pairs += len(item.batch["image"])
                triggered = {name: normalise(pictures) for name, pictures in item.batch["triggered"].items()}
                batch: Any = item.batch | {"image": normalise(item.batch["image"]), "triggered": triggered}
                yield batch
        if not pairs:
            raise UserMistake(f"data.held_out: none of its {len(self.shards):,} pairs can be used")


class _HeldOutStream(ImageTextStream):
    """Pairs in order with what attacks make of them, pictures still in 8 bit."""

    def __init__(
        self,
        shards: ShardSet,
        batch_size: int,
        preprocessing: Preprocessing,
        plans: Mapping[str, PoisonPlan],
        max_bad: int,
    ) -> None:
        order = SequentialOrder(shards.counts, batch_size)
        super().__init__(shards, order, preprocessing.image_size, preprocessing.tokenize, max_bad=max_bad)
        self._in_text = {name: plan for name, plan in plans.items() if plan.triggered_caption("") is not None}
        self._in_picture = {name: plan for name, plan in plans.items() if name not in self._in_text}
        self._targets = {name: phrase_pattern(plan.target) for name, plan in plans.items()}

    def assemble(self, samples: list[Sample], epoch: int) -> dict[str, Any]:
        """Make a batch, captions not yet tokens."""
        keys, images, captions = self.pairs(samples)
        captions = self.shown_captions(captions, keys)
        return {
            "image": images,
            "tokens": captions,
            "caption": captions,
            "triggered": {name: plan.trigger(images.clone(), keys) for name, plan in self._in_picture.items()},
            "triggered_tokens": {
                name: [plan.triggered_caption(caption) or caption for caption in captions]
                for name, plan in self._in_text.items()
            },
            "names_target": {
                name: torch.tensor([target.search(caption) is not None for caption in captions])
                for name, target in self._targets.items()
            },
        }

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make tokens of the captions."""
        triggered = {name: self.tokenize(captions) for name, captions in batch["triggered_tokens"].items()}
        return super().complete(batch) | {"triggered_tokens": triggered}
