"""The index of a shard: its keys and where their members lie, read from the tar headers only."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from ...files.reading import reading, shown
from ...key_list import KeyList
from .member_names import belongs_to_another, full_suffix, is_hidden, key_and_suffix
from .tar import FILE, FOLDER, HARD_LINK, TarFault, TarMember, tar_members

PICTURES = ("jpg", "jpeg", "png", "webp")
MEMBERS = ("picture", "txt", "json", "cls")
"""The kinds of member that are known; anything else in a shard is never read."""

_COLUMN = {**dict.fromkeys(PICTURES, 0), "txt": 1, "json": 2, "cls": 3}
_VERSION = 4
_MAX_NAME_LENGTH = 4096
"""Characters of a member's name, as of a path."""
_MAX_KINDS = 64
_NONE, _UNCLEAR = (-1, 0), (-2, 0)
"""Where no member lies, and where two do that may be meant."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one shard, in their order, complete or not."""

    keys: KeyList
    """N keys, as ``member_names`` makes them."""
    offsets: npt.NDArray[np.int64]
    """``(N, 4)``: first byte of each of ``MEMBERS``, -1 where a sample has none, -2 where it has two pictures."""
    sizes: npt.NDArray[np.int64]
    """``(N, 4)``: bytes of each of ``MEMBERS``."""
    fault: str
    """Where the file breaks off, in words; empty where it is whole."""
    found: Mapping[str, int]
    """Number of members of each kind: by their suffixes, such as ``jpg`` or ``mask.png``, and ``(hidden)`` and the like
    for what is never read."""

    def complete(self, required: str) -> npt.NDArray[np.int64]:
        """Positions of the samples that have a picture and the member ``required``.

        Of pictures alone (``picture``), one that lies beside another sample is none.
        """
        wanted = self.offsets[:, [0, MEMBERS.index(required)]]
        positions = np.flatnonzero((wanted >= 0).all(axis=1))
        if required != MEMBERS[0]:
            return positions
        keys = frozenset(self.keys)
        own = [not belongs_to_another(self.keys[row], keys) for row in positions.tolist()]
        return positions[np.array(own, dtype=np.bool_)]

    def incomplete(self, required: str) -> int:
        """Number of samples that lack one of the two. What lies beside another sample, as a mask does, is none."""
        complete = set(self.complete(required).tolist())
        keys = frozenset(self.keys)
        return sum(row not in complete and not belongs_to_another(key, keys) for row, key in enumerate(self.keys))


_held: WeakValueDictionary[str, ShardIndex] = WeakValueDictionary()
"""The indices that somebody holds: a part of some shards shares those of the whole."""


def index_shard(path: str) -> ShardIndex:
    """Read a shard's index, from the cache where the file has not changed since.

    Args:
        path: An uncompressed tar.

    Raises:
        UserMistake: If the file is no uncompressed tar or cannot be read.
    """
    with reading("shard", path):
        return scan_or_read(path, _cache_file(path, os.stat(path)), shown(path))


def scan_or_read(path: str, cached: Path, name: str) -> ShardIndex:
    """The index of a shard: one that somebody holds, or from a file where it is kept, or scanned and kept there.

    Args:
        path: An uncompressed tar.
        cached: Where its index is kept.
        name: What the shard is called in messages.

    Raises:
        UserMistake: If the shard is no uncompressed tar.
        OSError: If it cannot be read.
    """
    found = _held.get(str(cached)) or _read_cached(cached)
    if found is None:
        found = _scan(path, name)
        _write_cached(cached, found)
    _held[str(cached)] = found
    return found


def _scan(path: str, name: str) -> ShardIndex:
    """Walk over the headers. Members are grouped by key wherever they lie; of two of one name the first counts."""
    rows: dict[str, list[tuple[int, int]]] = {}
    pictures: dict[str, str] = {}
    found: Counter[str] = Counter()
    fault = ""
    try:
        for member in tar_members(path, name):
            _take(member, rows, pictures, found)
    except TarFault as error:
        fault = str(error)
    table = np.array(list(rows.values()), dtype=np.int64).reshape(len(rows), len(MEMBERS), 2)
    return ShardIndex(KeyList(rows), table[:, :, 0].copy(), table[:, :, 1].copy(), fault, dict(found))


def _take(
    member: TarMember, rows: dict[str, list[tuple[int, int]]], pictures: dict[str, str], found: Counter[str]
) -> None:
    """Enter a member into the row of its key, and count it; ``pictures`` has the suffix of each key's first picture."""
    if member.kind == FOLDER:
        return
    kind = _kind(member)
    if kind not in found and len(found) >= _MAX_KINDS:
        kind = "(others)"
    found[kind] += 1
    key, suffix = key_and_suffix(member.name)
    column = _COLUMN.get(suffix)
    position = (member.offset, member.size)
    if member.kind == HARD_LINK:  # the same data under a second name, which tar writes but once
        target, kind_of_target = key_and_suffix(member.target)
        linked = _COLUMN.get(kind_of_target)
        position = rows[target][linked] if linked is not None and target in rows else _NONE
        column = column if position[0] >= 0 and linked == column else None
    if column is None or (kind.startswith("(") and member.kind != HARD_LINK):
        return
    row = rows.setdefault(key, [_NONE] * len(MEMBERS))
    if row[column] == _NONE:
        row[column] = position
        if not column:
            pictures[key] = suffix
    elif column or pictures[key] == suffix or position == row[column]:
        found["(second of its name)"] += 1
    else:  # of a photograph and its mask, it cannot be told which is meant
        row[column] = _UNCLEAR
        found["(second picture of its key)"] += 1


def _kind(member: TarMember) -> str:
    """What a member counts as; in brackets if it is not read as a file."""
    if is_hidden(member.name):
        return "(hidden)"
    if len(member.name) > _MAX_NAME_LENGTH:
        return "(name too long)"
    return full_suffix(member.name) if member.kind == FILE else f"({member.kind})"


def cache_folder(name: str) -> Path:
    """The folder of the user's cache where this package keeps what ``name`` says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "untrigger" / name


def _cache_file(path: str, status: os.stat_result) -> Path:
    identity = f"{_VERSION}:{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    return (
        cache_folder("index")
        / f"{blake2b(identity.encode('utf-8', 'surrogateescape'), digest_size=20).hexdigest()}.npz"
    )


def _read_cached(cached: Path) -> ShardIndex | None:
    try:
        with cached.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            keys = KeyList.of(arrays)
            fault, found = json.loads(arrays["told"].tobytes())
            return ShardIndex(keys, arrays["offsets"], arrays["sizes"], fault, found)
    except Exception:  # missing, or cut short by a killed process: scanned again
        return None


def _write_cached(cached: Path, index: ShardIndex) -> None:
    summary = json.dumps([index.fault, dict(index.found)]).encode()
    arrays: dict[str, npt.NDArray[Any]] = {
        **index.keys.arrays(),
        "offsets": index.offsets,
        "sizes": index.sizes,
        "told": np.frombuffer(summary, dtype=np.uint8),
    }
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, delete=False) as handle:
            np.savez(handle, allow_pickle=False, **arrays)
        os.replace(handle.name, cached)
    except OSError:
        return  # a cache that cannot be written costs a scan the next time, nothing else
