"""The base class of data modules that stream shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ..contracts import Preprocessing, UserMistake
from ..trainer.seed import run_seed
from .bad_samples import BadSampleLog
from .loader import StreamLoader
from .normaliser import Normaliser
from .order import ShuffledOrder
from .shards import RemoteShards, ShardSet, expand_shards
from .shards.counts import read_counts
from .stream import MAX_WORKERS, ShardStream

_REMOTE = RemoteShards()


class ShardDataModule(LightningDataModule):
    """What data modules that stream shards have in common; what they stream is theirs.

    Args:
        num_workers: Reading processes of each rank; 0 reads in the training process.
        seed: Seeds the order and the views; the seed of ``seed_everything`` unless given.
        shuffle_window: Pairs that are shuffled together. A worker's share of an epoch that is not larger is shuffled
            as a whole.
        max_bad_share: Share of bad samples above which the run ends.
        allow_pipe: Whether a shard may be ``pipe:COMMAND``. It runs the command in a shell.
        counts: Pairs of each shard, so that none is opened before it is needed: a number that all have, ``stats`` for
            img2dataset's ``_stats.json`` beside each, or the path or URL of a ``sizes.json``. Unless given, every shard
            is indexed first, for which remote ones are fetched.
        remote: How shards are fetched that lie on a server or in an object store.
    """

    def __init__(
        self,
        num_workers: int = 2,
        seed: int | None = None,
        shuffle_window: int = 10_000,
        max_bad_share: float = 0.01,
        allow_pipe: bool = False,
        counts: int | str | None = None,
        remote: RemoteShards = _REMOTE,
    ) -> None:
        super().__init__()
        if not 0 <= num_workers <= MAX_WORKERS:
            raise UserMistake(f"data.num_workers is {num_workers}; it is at least 0 and at most {MAX_WORKERS}")
        if shuffle_window < 1 or not 0 <= max_bad_share <= 1:
            raise UserMistake("data: shuffle_window is at least 1, max_bad_share in [0, 1]")
        self.num_workers, self.shuffle_window, self.max_bad_share = num_workers, shuffle_window, max_bad_share
        self.seed = run_seed(seed)
        self.allow_pipe, self.counts, self.remote = allow_pipe, counts, remote
        self.preprocessing: Preprocessing | None = None
        self._normaliser: Normaliser | None = None

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Normalise the 8-bit pictures on the device."""
        for name in ("image", "image_view"):
            if name in batch:
                batch[name] = self._normalise(batch[name])
        if "triggered" in batch:
            batch["triggered"] = {name: self._normalise(images) for name, images in batch["triggered"].items()}
        return batch

    def _expanded(self, shards: str | list[str]) -> list[str]:
        """The paths and URLs that are meant."""
        return expand_shards(shards, self.allow_pipe)

    def _shard_set(self, shards: str | list[str], member: str) -> ShardSet:
        """Index shards, or count them as ``counts`` says; a sample has ``member`` beside its picture."""
        paths = self._expanded(shards)
        counts = None if self.counts is None else read_counts(self.counts, paths, self.remote)
        return ShardSet(paths, member, counts, self.remote)

    def _order(self, shards: ShardSet, batch_size: int) -> ShuffledOrder:
        return ShuffledOrder(shards.counts, batch_size, self.seed, self.shuffle_window, *self._rank)

    def _bad_samples(self, shards: ShardSet, where: str, ranks: int) -> BadSampleLog:
        # Each rank sees, and counts, its part. Of a few test pictures one may have all the bad ones.
        total = len(shards) + shards.incomplete
        share, missing = self.max_bad_share, shards.incomplete // ranks
        return BadSampleLog(total // ranks, missing, share, where, shards.found_members)

    def _loader(
        self, stream: ShardStream, bad: BadSampleLog, epoch: Callable[[], int] = int, overfits: bool = False
    ) -> StreamLoader:
        return StreamLoader(stream, bad, epoch, self.num_workers, torch.cuda.is_available(), overfits)

    def _normalise(self, images: Tensor) -> Tensor:
        if self._normaliser is None:
            self._normaliser = Normaliser(self._asked.mean, self._asked.std)
        return self._normaliser(images)

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    @property
    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    @property
    def _asked(self) -> Preprocessing:
        if self.preprocessing is None:
            raise RuntimeError("setup() has not run")
        return self.preprocessing
