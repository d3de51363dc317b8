"""Remote shards are fetched before they are needed, and released after."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

from .order import Positions, Share
from .shards import ShardSet

_AT_ONCE = 4
_MAX_COPIES = 128
"""Copies that are held at most: each is an open file."""


class Prefetch:
    """Holds the copies of the shards that a worker reads now or next.

    Args:
        shards: Those of which local ones need nothing.
    """

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._held: dict[int, Future[int]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "fetch") if shards.remote else None

    def expect(self, share: Share, index: int, positions: Positions) -> None:
        """Fetch what a batch and the next ones need, and release all else.

        Args:
            share: The worker's part of the epoch.
            index: The batch that is read now.
            positions: Its samples; when this returns, their shards are there.

        Raises:
            ShardUnavailable: If one of these cannot be fetched.
        """
        if self._pool is None:
            return
        wanted = share.shards(index)[:_MAX_COPIES]
        for shard in self._held.keys() - set(wanted):
            _release(self._held.pop(shard))
        self._shards.close_others(wanted)
        for shard in wanted:
            if shard not in self._held and shard in self._shards.remote:
                self._held[shard] = self._pool.submit(self._shards.cache.open, self._shards.paths[shard])
        for shard in dict.fromkeys(positions[:, 0].tolist()):
            if shard in self._held:
                self._held[shard].result()

    def close(self) -> None:
        """Release everything."""
        for future in self._held.values():
            _release(future)
        self._held.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _release(copy: Future[int]) -> None:
    def close(done: Future[int]) -> None:
        if not done.cancelled() and done.exception() is None:
            os.close(done.result())

    copy.cancel()
    copy.add_done_callback(close)
