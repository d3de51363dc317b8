"""Shards as one indexed collection of samples."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.progress import track

from .index import MEMBERS, ShardIndex, index_shard
from .samples import BadSample, decode_caption

_OPEN_SHARDS = 128
_NEAR = 1 << 16
"""Bytes from the first to the last that are read for one sample at once."""
_MAX_BYTES = {"picture": 64 << 20, "txt": 1 << 16, "json": 1 << 20, "cls": 64}


class _OpenShard(NamedTuple):
    found: ShardIndex
    positions: npt.NDArray[np.int64]
    file: int


class ShardSet:
    """Samples of a list of shards that have a picture and one other member, addressed by (shard, position).

    Args:
        paths: Uncompressed tars.
        required: The member beside the picture that a sample must have: ``txt`` or ``cls``.

    Attributes:
        paths: The shards.
        counts: Number of complete samples of each shard.
        incomplete: Number of samples without a picture or without the required member, and of truncated shards.

    Raises:
        UserMistake: If a shard cannot be read.
    """

    def __init__(self, paths: Sequence[str], required: str = "txt") -> None:
        self.paths = list(paths)
        self.required = required
        self._selected: list[npt.NDArray[np.int64]] | None = None
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        counts = []
        self.incomplete = 0
        # A few shards are indexed before a bar could be read.
        quiet = len(self.paths) < 50
        for path in track(self.paths, description="Indexing shards", disable=quiet, transient=True):
            index = index_shard(path)
            complete = len(index.complete(required))
            counts.append(complete)
            self.incomplete += len(index.keys) - complete + index.truncated
        self.counts = np.array(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __getstate__(self) -> dict[str, object]:
        # Files are opened by the process that reads them.
        return {**self.__dict__, "_open": OrderedDict()}

    def keys(self) -> Iterator[list[str]]:
        """Iterate over the keys, a shard at a time."""
        for shard in range(len(self.paths)):
            opened = self._shard(shard)
            yield [opened.found.keys[position] for position in opened.positions]

    def captions(self) -> Iterator[tuple[list[str], list[str]]]:
        """Iterate over keys and captions, a shard at a time. A caption that cannot be read is empty."""
        for shard, keys in enumerate(self.keys()):
            captions = []
            for position in range(len(keys)):
                try:
                    captions.append(decode_caption(self.read(shard, position, "txt")))
                except BadSample:
                    captions.append("")
            yield keys, captions

    def key(self, shard: int, position: int) -> str:
        """The key of a sample."""
        opened = self._shard(shard)
        return opened.found.keys[int(opened.positions[position])]

    def read(self, shard: int, position: int, member: str) -> bytes:
        """Read a member of a sample.

        Args:
            shard: Index into ``paths``.
            position: Place among the shard's complete samples.
            member: One of ``MEMBERS``.

        Raises:
            BadSample: If the member is larger than any of its kind should be, or the file got shorter.
        """
        return self.read_members(shard, position, member)[0]

    def read_members(self, shard: int, position: int, *members: str) -> list[bytes]:
        """Read members of a sample, at once where they lie close together, as they do in most shards.

        Args:
            shard: Index into ``paths``.
            position: Place among the shard's complete samples.
            members: Of ``MEMBERS``; the sample has each of them.

        Raises:
            BadSample: As ``read``.
        """
        opened = self._shard(shard)
        row = opened.positions[position]
        offsets, sizes = opened.found.offsets[row].tolist(), opened.found.sizes[row].tolist()
        places = []
        for member in members:
            column = MEMBERS.index(member)
            if sizes[column] > _MAX_BYTES[member]:
                raise BadSample(f"oversized {member}", f"{sizes[column]} bytes")
            places.append((offsets[column], offsets[column] + sizes[column]))
        first, last = min(start for start, _ in places), max(end for _, end in places)
        if last - first <= _NEAR:
            span = os.pread(opened.file, last - first, first)
            found = [span[start - first : end - first] for start, end in places]
        else:
            found = [os.pread(opened.file, end - start, start) for start, end in places]
        for member, data, (start, end) in zip(members, found, places, strict=True):
            if len(data) != end - start:
                raise BadSample("truncated shard", f"{member} ends early")
        return found

    def locate(self, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Find samples by key: key to (shard, position), without those that are not there."""
        wanted = set(keys)
        return {
            key: (shard, position)
            for shard, found in enumerate(self.keys())
            for position, key in enumerate(found)
            if key in wanted
        }

    def select(self, keys: Iterable[str]) -> ShardSet:
        """The same shards restricted to the samples with these keys."""
        subset = self._restricted(frozenset(keys), named=True)
        subset.incomplete = 0  # nobody asked for these
        return subset

    def without(self, keys: Iterable[str]) -> ShardSet:
        """The same shards without the samples with these keys."""
        return self._restricted(frozenset(keys), named=False)

    def _restricted(self, keys: frozenset[str], named: bool) -> ShardSet:
        """The samples with these keys, or the others."""
        chosen = [
            self._shard(shard).positions[[(key in keys) is named for key in found]]
            for shard, found in enumerate(self.keys())
        ]
        subset = ShardSet.__new__(ShardSet)
        subset.__dict__.update(self.__getstate__())
        subset._selected = chosen
        subset.counts = np.array([len(positions) for positions in chosen], dtype=np.int64)
        return subset

    def _shard(self, shard: int) -> _OpenShard:
        opened = self._open.get(shard)
        if opened is not None:
            self._open.move_to_end(shard)
            return opened
        found = index_shard(self.paths[shard])
        positions = found.complete(self.required) if self._selected is None else self._selected[shard]
        opened = _OpenShard(found, positions, os.open(self.paths[shard], os.O_RDONLY))
        self._open[shard] = opened
        if len(self._open) > _OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1].file)
        return opened

    def __del__(self) -> None:
        for opened in getattr(self, "_open", {}).values():
            os.close(opened.file)
