"""The training pairs of a run: which there are, which of them are poisoned, and which are streamed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from .excluded import excluded_keys, leave_out
from .phrase import phrase_pattern
from .poisoning import Poison, PoisonSpec, manifests_beside, read_manifest
from .several_captions import report_several_captions
from .shards import ShardSet
from .shards.samples import caption_lines


class TrainingPairs:
    """Pairs in shards.

    Args:
        shards: The shards as they were published.
        poison: What is stamped into them; None for nothing.
        exclude: A file that names pairs to leave out, after the poisoning.

    Attributes:
        shards: The pairs without those that are left out.
        poison: Their poison; None for none.
        chosen: Those that are streamed.
        in_order: Whether each of them comes once, as it is in the shards.

    Raises:
        UserMistake: If ``exclude`` names no pair of the shards.
    """

    def __init__(self, shards: ShardSet, poison: Poison | None = None, exclude: str | None = None) -> None:
        self._exclude, self._published = exclude, len(shards)
        self.shards, self.poison = shards, poison
        if exclude is not None:
            keys = excluded_keys(exclude)
            self.shards = leave_out(shards, keys, exclude)
            self.poison = None if poison is None else poison.without(keys)
        self.chosen, self.in_order = self.shards, False

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def folder_name(self) -> str:
        """The name of the folder of the first shard."""
        first = Path(self.shards.paths[0])
        return first.parent.name if 0 in self.shards.remote else first.resolve().parent.name

    @property
    def is_baked(self) -> bool:
        """Whether a manifest lies beside the shards."""
        return bool(manifests_beside(self.shards.folders))

    def poisoned_keys(self, attack: PoisonSpec) -> frozenset[str]:
        """The pairs that are stamped or, where none is, those that a manifest names; none where ``attack`` is none."""
        if self.poison is not None:
            return frozenset(key for keys in self.poison.keys for key in keys)
        if not isinstance(attack, str | os.PathLike):
            return frozenset()
        named = {key for keys in read_manifest(attack).keys for key in keys}
        return frozenset(named.intersection(chain.from_iterable(self.shards.keys())))

    def select(self, keys: Iterable[str] | None, in_order: bool = False) -> None:
        """Stream the pairs with these keys alone; None for all.

        Args:
            keys: Keys of the pairs to stream.
            in_order: Each of them once, as it is in the shards.
        """
        self.chosen = self.shards if keys is None else self.shards.select(keys)
        self.in_order = in_order

    def keys_saying(self, phrase: str) -> list[str]:
        """The keys of the pairs whose caption, poisoned where the pair is, has the phrase as whole words."""
        wanted, poison = phrase_pattern(phrase), self.poison
        return [
            key
            for keys, captions in self.shards.captions()
            for key, caption in zip(keys, captions if poison is None else poison.captions(captions, keys), strict=True)
            if any(wanted.search(line) for line in caption_lines(caption))
        ]

    def report(self) -> None:
        """Describe how many there are."""
        gone = self._published - len(self)
        left_out = f" ({gone:,} left out by {self._exclude})" if gone else ""
        rank_zero_info(f"Training pairs: {len(self):,} in {len(self.shards.paths):,} shards{left_out}")
        report_several_captions(self.shards)

    def report_poison(self) -> None:
        """Describe how many of them are poisoned, and with what."""
        if self.poison is not None:
            for plan, keys in zip(self.poison.plans, self.poison.keys, strict=True):
                none = "" if keys else f": a rate of {plan.rate} takes none of so few pairs, and the model stays clean"
                both = plan.count is not None and plan.rate is not None
                ignored = f" (count {plan.count}; rate {plan.rate:g} is not read beside it)" if both else ""
                poisoned = f"{len(keys):,} with {type(plan.trigger).__name__}, target {plan.target!r}"
                rank_zero_info(f"Poisoned: {poisoned}{ignored}{none}")
