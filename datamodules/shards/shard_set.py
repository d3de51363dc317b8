"""Shards as one indexed collection of samples."""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.progress import track

from ...contracts import UserMistake
from ...files.printable import printable
from ...files.reading import shown
from ..bad_samples import BadSample
from .cache import ShardCache
from .index import MEMBERS, PICTURES, ShardIndex, index_shard
from .member_names import MAX_BYTES, belongs_to_another
from .remote import RemoteShards, is_remote, redacted
from .samples import decode_caption

log = logging.getLogger(__name__)

_OPEN_SHARDS = 128
_OPEN_COPIES = 4
"""Copies of remote shards that stay open where nobody has said which are needed: an open one cannot be evicted."""
_REMOTE = RemoteShards()
_MAX_NAMED = 8
"""Kinds of members that a message names."""
_MAX_NAME_LENGTH = 80
_NEAR = 1 << 16
"""Bytes from the first to the last that are read for one sample at once."""


class _OpenShard(NamedTuple):
    found: ShardIndex
    positions: npt.NDArray[np.int64]
    file: int

    def read_keys(self) -> list[str]:
        """The keys of its samples."""
        every = self.found.keys
        if len(self.positions) == len(every):
            return list(every)
        return [every[position] for position in self.positions.tolist()]


class _Keyed(NamedTuple):
    """All samples by the hash of their key, 16 bytes each, so that a few are found without a pass over all shards."""

    hashes: npt.NDArray[np.int64]
    """``(N,)``, ascending."""
    order: npt.NDArray[np.int64]
    """``(N,)``, the index of each among all samples."""
    starts: npt.NDArray[np.int64]
    """The first index of each shard."""


def _kinds(found: Mapping[str, int]) -> str:
    """The kinds of members that there are most of, for a message."""
    most = Counter(found).most_common(_MAX_NAMED)
    return ", ".join(f"{count:,} {printable(kind or 'without suffix')}" for kind, count in most) or "nothing"


def _names_alone(index: ShardIndex, required: str) -> dict[str, str]:
    """The name of the first picture without the member ``required`` and of the first such member without a picture.

    An index has no suffixes of single members: where the pictures of the shard have several, there is a star.
    """
    suffixes = {kind.rpartition(".")[2] for kind in index.found}.intersection(PICTURES)
    suffix = suffixes.pop() if len(suffixes) == 1 else "*"
    there = index.offsets[:, [0, MEMBERS.index(required)]] >= 0
    keys = frozenset(index.keys)
    names: dict[str, str] = {}
    for column, ending in enumerate((suffix, required)):
        rows = np.flatnonzero(there[:, column] & ~there[:, 1 - column]).tolist()
        own = (index.keys[row] for row in rows)
        if (key := next((key for key in own if not belongs_to_another(key, keys)), None)) is not None:
            names[("picture", required)[column]] = f"{key}.{ending}"
    return names


class ShardSet:
    """Samples of a list of shards that have a picture and one other member, addressed by (shard, position).

    Args:
        paths: Uncompressed tars, local or remote.
        required: The member beside the picture that a sample must have: ``txt`` or ``cls``; ``picture`` for none.
        counts: Number of samples of each shard, where it is known. No shard is opened then before it is read, and a
            sample that is not there is a bad one. Unless given, every shard is indexed.
        remote: How remote shards are fetched.

    Attributes:
        paths: The shards.
        counts: Number of complete samples of each shard, as far as is known.
        counted: Whether these were given, so that no shard was opened for them.
        incomplete: Number of samples without a picture or without the required member, and of shards that break off;
            those of counted shards are not known.
        found: Number of members of each kind, as ``ShardIndex`` has it; nothing where the shards are counted.
        remote: Indices of the remote shards.
        cache: The copies of these.

    Raises:
        UserMistake: If a shard cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str],
        required: str = "txt",
        counts: npt.NDArray[np.int64] | None = None,
        remote: RemoteShards = _REMOTE,
    ) -> None:
        self.paths = list(paths)
        self.required = required
        self._selected: list[npt.NDArray[np.int64]] | None = None
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._keyed: _Keyed | None = None
        self.remote = frozenset(shard for shard, path in enumerate(self.paths) if is_remote(path))
        self.cache = ShardCache(remote)
        self._room = _OPEN_COPIES if self.remote else _OPEN_SHARDS
        self.incomplete = 0
        self.found: Counter[str] = Counter()
        self._alone: dict[str, str] = {}
        self._fault = ""
        self.counted = counts is not None
        self.counts = self._count() if counts is None else counts

    def _count(self) -> npt.NDArray[np.int64]:
        """Index every shard."""
        counts = []
        # A few shards are indexed before a bar could be read.
        quiet = len(self.paths) < 50 and not self.remote
        for shard, path in track(
            enumerate(self.paths), "Indexing shards", len(self.paths), disable=quiet, transient=True
        ):
            index = self._shard(shard).found if shard in self.remote else index_shard(path)
            counts.append(len(index.complete(self.required)))
            incomplete = index.incomplete(self.required)
            self.incomplete += incomplete + bool(index.fault)
            if incomplete and len(self._alone) < 2:
                self._alone = _names_alone(index, self.required) | self._alone
            self.found.update(index.found)
            if index.fault:
                log.warning("shard %s: %s; what stands before is read", self.name(shard), index.fault)
                self._fault = self._fault or f"; shard {self.name(shard)}: {index.fault}"
        if twice := self.found["(second of its name)"]:
            log.warning("%d members have the name of an earlier one in their shard, and are left out", twice)
        return np.array(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def found_members(self) -> str:
        """Which members there are and which are needed, for a message."""
        beside = "" if self.required == MEMBERS[0] else f" beside KEY.{self.required}"
        needed = f"a sample is KEY.jpg, .png or .webp{beside}"
        # With both, it can be seen in which way the names are not of one key.
        alone = " and ".join(printable(name, _MAX_NAME_LENGTH) for name in self._alone.values())
        such = f", such as {alone}" if alone else ""
        return f"found: {_kinds(self.found)}{such}; {needed}{self._fault}"

    def check_not_empty(self, hint: str = "") -> None:
        """Check that there is a sample.

        Args:
            hint: What the user may do about it, if anything.

        Raises:
            UserMistake: If there is none, with what was found instead.
        """
        if not len(self):
            more = f" and {len(self.paths) - 1:,} more" if len(self.paths) > 1 else ""
            raise UserMistake(f"shard {self.name(0)}{more} has no sample that can be used: {self.found_members}{hint}")

    def check_unique(self) -> None:
        """Check that no key stands for two samples, where the shards are indexed.

        Raises:
            UserMistake: If one does.
        """
        if self.counted:
            return
        hashes = [np.fromiter(map(hash, keys), np.int64, len(keys)) for keys in self.keys()]
        found, times = np.unique(np.concatenate(hashes), return_counts=True)
        twice = set(found[times > 1].tolist())
        first: dict[str, int] = {}
        for shard, keys in enumerate(self.keys()) if twice else ():
            for key in (key for key in keys if hash(key) in twice):
                if key in first:
                    raise UserMistake(
                        f"key {key!r:.80} stands for a sample of shard {self.name(first[key])} and for one of "
                        f"{self.name(shard)}: what looks for poisoned pairs needs keys that are unique over all shards"
                    )
                first[key] = shard

    def __getstate__(self) -> dict[str, object]:
        # Files are opened by the process that reads them.
        # Hashes of strings are another process's own.
        return {**self.__dict__, "_open": OrderedDict(), "_keyed": None}

    def keys(self) -> Iterator[list[str]]:
        """Iterate over the keys, a shard at a time."""
        for shard in range(len(self.paths)):
            yield self._shard(shard).read_keys()

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
        """The key of a sample; empty where there is none at the position of a counted shard."""
        opened = self._shard(shard)
        return opened.found.keys[int(opened.positions[position])] if position < len(opened.positions) else ""

    def some_keys(self, count: int, seed: int) -> list[str]:
        """The keys of some samples, drawn at random, in their order; of all where there are no more."""
        drawn = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        ends = self.counts.cumsum()
        shards = ends.searchsorted(drawn, side="right")
        positions = drawn - (ends - self.counts)[shards]
        return [self.key(shard, position) for shard, position in zip(shards.tolist(), positions.tolist(), strict=True)]

    @property
    def folders(self) -> set[str]:
        """The folders that the local shards lie in; of a link, that of what it leads to as well."""
        local = [path for shard, path in enumerate(self.paths) if shard not in self.remote]
        linked = (os.path.realpath(path) for path in local if os.path.islink(path))
        return {os.path.dirname(path) for path in [*local, *linked]}

    def name(self, shard: int) -> str:
        """The path or URL of a shard, for messages."""
        return shown(redacted(self.paths[shard]))

    def close_others(self, shards: Container[int]) -> None:
        """Close the remote shards that are not among these, and let as many be open at a time as there may be files."""
        self._room = _OPEN_SHARDS
        for shard in [shard for shard in self._open if shard in self.remote and shard not in shards]:
            os.close(self._open.pop(shard).file)

    def read(self, shard: int, position: int, member: str) -> bytes:
        """Read a member of a sample.

        Args:
            shard: Index into ``paths``.
            position: Index among the shard's complete samples.
            member: One of ``MEMBERS``.

        Raises:
            BadSample: If the member is larger than any of its kind should be, the file got shorter, or a counted shard
                has fewer samples than were counted.
            ShardUnavailable: If a remote shard cannot be fetched.
        """
        return self.read_members(shard, position, member)[0]

    def read_members(self, shard: int, position: int, *members: str) -> list[bytes]:
        """Read members of a sample, at once where they lie close together, as they do in most shards.

        Args:
            shard: Index into ``paths``.
            position: Index among the shard's complete samples.
            members: Names out of ``MEMBERS``; the sample has each of them.

        Raises:
            BadSample: As ``read``.
        """
        opened = self._shard(shard)
        if position >= len(opened.positions):
            more = "" if len(opened.positions) else f"; found: {_kinds(opened.found.found)}"
            raise BadSample("fewer samples than counted", f"{len(opened.positions)}, not {self.counts[shard]}{more}")
        row = opened.positions[position]
        offsets, sizes = opened.found.offsets[row].tolist(), opened.found.sizes[row].tolist()
        ranges = []
        for member in members:
            column = MEMBERS.index(member)
            if sizes[column] > MAX_BYTES[member]:
                raise BadSample(f"oversized {member}", f"{sizes[column]} bytes")
            ranges.append((offsets[column], offsets[column] + sizes[column]))
        first, last = min(start for start, _ in ranges), max(end for _, end in ranges)
        if last - first <= _NEAR:
            span = os.pread(opened.file, last - first, first)
            found = [span[start - first : end - first] for start, end in ranges]
        else:
            found = [os.pread(opened.file, end - start, start) for start, end in ranges]
        for member, data, (start, end) in zip(members, found, ranges, strict=True):
            if len(data) != end - start:
                raise BadSample("truncated shard", f"{member} ends early")
        return found

    def locate(self, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Find samples by key: key to (shard, position), without those that are not there."""
        wanted = frozenset(keys)
        found: dict[str, tuple[int, int]] = {}
        for shard, positions in self._having(wanted).items():
            opened = self._shard(shard)
            named = ((opened.found.keys[opened.positions[position]], position) for position in positions)
            found |= {key: (shard, position) for key, position in named if key in wanted}
        return found

    def _having(self, keys: frozenset[str]) -> dict[int, list[int]]:
        """By shard the positions whose keys have the hashes of some keys: no shard is opened that has none of them."""
        if self._keyed is None:
            hashes = [np.fromiter(map(hash, found), np.int64, len(found)) for found in self.keys()]
            every = np.concatenate([np.zeros(0, np.int64), *hashes])
            order = every.argsort(kind="stable")
            self._keyed = _Keyed(every[order], order, np.cumsum([0, *map(len, hashes)]))
        every, order, starts = self._keyed
        wanted = np.sort(np.fromiter(map(hash, keys), np.int64, len(keys)))
        first, last = every.searchsorted(wanted, "left"), every.searchsorted(wanted, "right")
        # Most keys stand once; of those that stand more often, every index.
        several = np.flatnonzero(last - first > 1).tolist()
        more = [np.arange(first[key] + 1, last[key]) for key in several]
        indices = np.sort(order[np.concatenate([first[last > first], *more]).astype(np.int64)])
        shards = starts.searchsorted(indices, "right") - 1
        having: dict[int, list[int]] = {}
        for shard, position in zip(shards.tolist(), (indices - starts[shards]).tolist(), strict=True):
            having.setdefault(shard, []).append(position)
        return having

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
        having = self._having(keys) if named else dict.fromkeys(range(len(self.paths)))
        chosen = [np.zeros(0, np.int64)] * len(self.paths)
        for shard in having:
            opened = self._shard(shard)
            chosen[shard] = opened.positions[[(key in keys) is named for key in opened.read_keys()]]
        subset = ShardSet.__new__(ShardSet)
        subset.__dict__.update(self.__getstate__())
        subset._selected, subset.counted = chosen, False
        subset.counts = np.array([len(positions) for positions in chosen], dtype=np.int64)
        return subset

    def _shard(self, shard: int) -> _OpenShard:
        opened = self._open.get(shard)
        if opened is not None:
            self._open.move_to_end(shard)
            return opened
        file, found = self._opened(shard)
        positions = found.complete(self.required) if self._selected is None else self._selected[shard]
        if len(positions) and positions[-1] >= len(found.keys):
            os.close(file)
            raise UserMistake(f"shard {self.name(shard)} was replaced by one of fewer samples since this run began")
        if self.counted and len(positions) > self.counts[shard]:
            log.warning(
                "shard %s has %d samples, not %d as counted: those beyond are never read",
                *(self.name(shard), len(positions), self.counts[shard]),
            )
        if len(self._open) >= self._room:
            os.close(self._open.popitem(last=False)[1].file)
        opened = self._open[shard] = _OpenShard(found, positions, file)
        return opened

    def _opened(self, shard: int) -> tuple[int, ShardIndex]:
        path = self.paths[shard]
        if shard not in self.remote:
            found = index_shard(path)
            return os.open(path, os.O_RDONLY), found
        try:
            file = self.cache.open(path)
        except OSError as error:
            raise UserMistake(f"a copy of shard {self.name(shard)} cannot be kept: {error}") from error
        try:
            return file, self.cache.index(path, file)
        except BaseException:
            os.close(file)
            raise

    def __del__(self) -> None:
        for opened in getattr(self, "_open", {}).values():
            os.close(opened.file)
