"""Reports, before training starts, that pairs have several captions."""

from __future__ import annotations

from contextlib import suppress

from lightning.pytorch.utilities import rank_zero_info

from .bad_samples import BadSample
from .shards import ShardSet
from .shards.samples import caption_lines, decode_caption

_LOOKED_AT = 100


def report_several_captions(shards: ShardSet) -> None:
    """Say what is made of texts of several lines, if some of the first pairs have one.

    Args:
        shards: The pairs. A remote shard is not fetched for it.
    """
    if 0 in shards.remote or shards.required != "txt":
        return
    looked, several = min(_LOOKED_AT, int(shards.counts[0])), 0
    for position in range(looked):
        with suppress(BadSample):
            several += len(caption_lines(decode_caption(shards.read(0, position, "txt")))) > 1
    if several:
        rank_zero_info(
            f"Captions: {several} of the first {looked} pairs have several, one a line: one is drawn for each epoch, "
            "and a pass in order shows the first"
        )
