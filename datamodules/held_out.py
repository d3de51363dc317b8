"""Pairs that a model was not trained on, clean and under each attack, for retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ..contracts import HeldOutBatch, Preprocessing
from .measured import on_pairs
from .order import SequentialOrder
from .phrase import phrase_pattern
from .poisoning import PoisonPlan
from .shards import ShardSet
from .stream import ImageTextStream


def held_out_batches(
    shards: ShardSet,
    plans: Mapping[str, PoisonPlan],
    preprocessing: Preprocessing,
    normalise: Callable[[Tensor], Tensor],
    batch_size: int,
) -> Iterator[HeldOutBatch]:
    """Read pairs in the order of their shards.

    Args:
        shards: The pairs.
        plans: What is measured, by name. Those that pairs cannot show are left out (``on_pairs``).
        preprocessing: What the model asks for.
        normalise: Makes ``(N, 3, S, S)`` float of pictures in 8 bit.
        batch_size: Pairs of a batch.

    Raises:
        UserMistake: If a pair cannot be read.
    """
    size = preprocessing.image_size
    stream = ImageTextStream(shards, SequentialOrder(shards.counts, batch_size), size, preprocessing.tokenize)
    shown = on_pairs(plans, size)
    in_text = {name: plan for name, plan in shown.items() if plan.triggered_caption("") is not None}
    targets = {name: phrase_pattern(plan.target) for name, plan in shown.items()}
    for keys in iter(shards.keys()):
        for start in range(0, len(keys), batch_size):
            some, images, captions = stream.pairs(stream.read_keys(keys[start : start + batch_size]))
            yield {
                "image": normalise(images),
                "tokens": preprocessing.tokenize(captions),
                "caption": captions,
                "triggered": {
                    name: normalise(plan.trigger(images, some)) for name, plan in shown.items() if name not in in_text
                },
                "triggered_tokens": {
                    name: preprocessing.tokenize([plan.triggered_caption(caption) or caption for caption in captions])
                    for name, plan in in_text.items()
                },
                "names_target": {
                    name: torch.tensor([target.search(caption) is not None for caption in captions])
                    for name, target in targets.items()
                },
            }
