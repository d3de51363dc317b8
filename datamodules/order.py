"""The order of samples by rank and worker: pure functions of the seed and the epoch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..contracts import UserMistake

Positions = npt.NDArray[np.int64]
"""``(N, 2)``: shard and position of N samples."""


class Share(Protocol):
    """The batches of one worker in one epoch."""

    batches: int

    def batch(self, index: int) -> Positions:
        """Positions of the samples of the worker's batch ``index``."""

    def spare(self, index: int) -> Positions | None:
        """The position, ``(1, 2)``, of the ``index``-th replacement of a bad sample; None where none is to be had."""

    def shards(self, index: int) -> list[int]:
        """The shards that batch ``index`` and those that come soon after it are on, in the order of need."""


class Order(Protocol):
    """How the samples of shards are dealt to ranks, workers and batches."""

    steps: int
    """Batches of a rank in an epoch."""
    rank: int
    """Whose batches these are."""
    ranks: int
    """Among how many the samples are dealt."""

    def division(self, num_workers: int) -> dict[str, int]:
        """What decides, beside seed and epoch, who gives which sample in which batch: plain numbers by name."""

    def resumed(self, samples: int) -> int:
        """The batch of a rank to resume with in an epoch whose first samples were given in another division.

        Args:
            samples: How many, over all ranks.

        Returns:
            Batches that are not given any more, below ``steps``.
        """

    def share(self, epoch: int, worker: int, num_workers: int) -> Share:
        """What one worker gives in one epoch: the batches ``worker``, ``worker + num_workers``, ... of its rank."""


class _Sequence:
    """Shards laid end to end."""

    def __init__(self, counts: npt.NDArray[np.int64], shards: npt.NDArray[np.int64] | None = None) -> None:
        self._shards = np.arange(len(counts)) if shards is None else shards
        self._ends = np.cumsum(counts[self._shards])
        self._starts = self._ends - counts[self._shards]

    def positions(self, indices: npt.NDArray[np.int64]) -> Positions:
        found = np.searchsorted(self._ends, indices, side="right")
        return np.stack([self._shards[found], indices - self._starts[found]], axis=1)

    def under(self, first: int, last: int) -> list[int]:
        """The shards under the samples from ``first`` to before ``last``, on a ring: they may lie beyond its end."""
        ring = int(self._ends[-1])
        first, last = first % ring, first % ring + last - first
        found: dict[int, None] = {}
        for start, end in ((first, min(last, ring)), (0, last - ring)):
            if end > start:
                lowest, highest = np.searchsorted(self._ends, (start, end - 1), side="right")
                span = slice(lowest, highest + 1)
                filled = self._ends[span] > self._starts[span]
                found |= dict.fromkeys(self._shards[span][filled].tolist())
        return list(found)


class SequentialOrder:
    """Every sample once, in the order of the shards; the last batch may be smaller, bad samples are left out.

    Every rank has the same number of batches: one that would have a batch less parts a sample from its last one, and
    where there are fewer samples than ranks, some have a batch without any.

    Args:
        counts: Samples of each shard.
        batch_size: Samples of a batch of a rank.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, counts: npt.NDArray[np.int64], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.ranks = rank, world_size
        self._sequence = _Sequence(counts)
        total = int(counts.sum())
        self._division = {"ranks": world_size, "batch_size": batch_size, "samples": total}
        starts = np.arange(world_size + 1) * total // world_size
        self.steps = int(-(-np.diff(starts).max() // batch_size))
        size = int(starts[rank + 1] - starts[rank])
        ends = np.minimum(np.arange(1, self.steps + 1) * batch_size, size - np.arange(self.steps)[::-1])
        self._bounds = starts[rank] + np.concatenate([[0], np.maximum(ends, 0)]).astype(np.int64)

    def division(self, num_workers: int) -> dict[str, int]:
        """See ``Order``; workers only take turns."""
        return self._division

    def resumed(self, samples: int) -> int:
        """See ``Order``: none, as a pass in order gives every sample once."""
        return 0

    def share(self, epoch: int, worker: int, num_workers: int) -> Share:
        """See ``Order``; every epoch is the same."""
        return _SequentialShare(self._sequence, self._bounds, worker, num_workers)


class _SequentialShare:
    def __init__(self, sequence: _Sequence, bounds: npt.NDArray[np.int64], worker: int, num_workers: int) -> None:
        self._sequence, self._bounds, self._worker, self._num_workers = sequence, bounds, worker, num_workers
        self.batches = len(range(worker, len(bounds) - 1, num_workers))

    def batch(self, index: int) -> Positions:
        batch = self._worker + index * self._num_workers
        return self._sequence.positions(np.arange(self._bounds[batch], self._bounds[batch + 1]))

    def spare(self, index: int) -> Positions | None:
        return None

    def shards(self, index: int) -> list[int]:
        batch = self._worker + index * self._num_workers
        after = min(batch + self._num_workers + 1, len(self._bounds) - 1)
        first, last = int(self._bounds[batch]), int(self._bounds[after])
        return self._sequence.under(first, last) if last > first else []


class ShuffledOrder:
    """A training epoch: every sample at most once, the same number of full batches for every rank.

    The shards are laid end to end in an order drawn for the epoch, and the ring that they form is cut at a random
    position. Each rank, and in it each worker, gets a stretch, of which windows of ``window`` samples are shuffled. So
    a worker reads a few shards at a time, and a stretch that is at most a window is shuffled as a whole. What does not
    fill a global batch is left out, other samples each epoch, and replaces bad samples of the same worker. A worker
    whose spare samples are used up takes replacements from the start of its own stretch, so that every rank still has
    the same number of full batches.

    Args:
        counts: Samples of each shard.
        batch_size: Samples of a batch of a rank.
        seed: Seeds every draw.
        window: Samples that are shuffled together.
        rank: This process.
        world_size: Number of processes.

    Raises:
        UserMistake: If the samples do not fill one global batch.
    """

    def __init__(
        self,
        counts: npt.NDArray[np.int64],
        batch_size: int,
        seed: int,
        window: int = 10_000,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._counts, self._batch_size, self._seed, self._window = counts, batch_size, seed, window
        self._total = int(counts.sum())
        self._start, self._end = rank * self._total // world_size, (rank + 1) * self._total // world_size
        self.rank, self.ranks = rank, world_size
        self.steps = self._total // (batch_size * world_size)
        if not self.steps:
            ranks = f" of each of {world_size} ranks" if world_size > 1 else ""
            raise UserMistake(f"{self._total} training pairs do not fill one batch of {batch_size}{ranks}")

    def division(self, num_workers: int) -> dict[str, int]:
        """See ``Order``."""
        return {
            "ranks": self.ranks,
            "workers": num_workers,
            "batch_size": self._batch_size,
            "samples": self._total,
            "seed": self._seed,
            "shuffle_window": self._window,
        }

    def resumed(self, samples: int) -> int:
        """See ``Order``: as many samples are left out, though not the same ones."""
        return min(samples // (self._batch_size * self.ranks), self.steps - 1)

    def share(self, epoch: int, worker: int, num_workers: int) -> Share:
        """See ``Order``."""
        rng = np.random.default_rng((self._seed, epoch))
        sequence = _Sequence(self._counts, rng.permutation(len(self._counts)))
        cut = int(rng.integers(self._total))
        spare = self._end - self._start - self.steps * self._batch_size
        sizes = [
            len(range(index, self.steps, num_workers)) * self._batch_size + len(range(index, spare, num_workers))
            for index in range(num_workers)
        ]
        start = self._start + sum(sizes[:worker])
        windows = (self._seed, epoch, self.rank, worker)
        batches = len(range(worker, self.steps, num_workers))
        return _ShuffledShare(
            sequence, (start + cut, sizes[worker], self._total), (self._window, windows), self._batch_size, batches
        )


class _ShuffledShare:
    def __init__(
        self,
        sequence: _Sequence,
        stretch: tuple[int, int, int],
        shuffle: tuple[int, tuple[int, ...]],
        batch_size: int,
        batches: int,
    ) -> None:
        self._sequence = sequence
        self._start, self._size, self._ring = stretch
        self._window, self._seed = shuffle
        self._batch_size = batch_size
        self.batches = batches
        self._permutations: dict[int, npt.NDArray[np.int64]] = {}

    def batch(self, index: int) -> Positions:
        return self._positions(index * self._batch_size, (index + 1) * self._batch_size)

    def spare(self, index: int) -> Positions | None:
        start = (self.batches * self._batch_size + index) % self._size
        return self._positions(start, start + 1)

    def shards(self, index: int) -> list[int]:
        # Of the windows that the batch is in, and of the next one.
        first = index * self._batch_size // self._window * self._window
        last = (((index + 1) * self._batch_size - 1) // self._window + 2) * self._window
        return self._sequence.under(self._start + first, self._start + min(last, self._size))

    def _positions(self, first: int, last: int) -> Positions:
        parts = []
        for window in range(first // self._window, (last - 1) // self._window + 1):
            start = window * self._window
            parts.append(start + self._permutation(window)[max(first - start, 0) : last - start])
        return self._sequence.positions((self._start + np.concatenate(parts)) % self._ring)

    def _permutation(self, window: int) -> npt.NDArray[np.int64]:
        if window not in self._permutations:
            # Two are enough: a batch may lie across a border. Spares look elsewhere, and seldom.
            if len(self._permutations) > 1:
                self._permutations.pop(next(iter(self._permutations)))
            size = min(self._window, self._size - window * self._window)
            self._permutations[window] = np.random.default_rng((*self._seed, window)).permutation(size)
        return self._permutations[window]
