"""The index of a shard: its keys and where their members lie, read from the tar headers only."""

from __future__ import annotations

import os
import tarfile
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake

PICTURES = ("jpg", "jpeg", "png", "webp")
MEMBERS = ("picture", "txt", "json", "cls")
"""The kinds of member that are known; anything else in a shard is never read."""

_COLUMN = {**dict.fromkeys(PICTURES, 0), "txt": 1, "json": 2, "cls": 3}
_VERSION = 1


class ShardIndex(NamedTuple):
    """The samples of one shard, in their order, complete or not."""

    keys: list[str]
    """N keys: a member's path without its last suffix."""
    offsets: npt.NDArray[np.int64]
    """``(N, 4)``: first byte of each of ``MEMBERS``, -1 where a sample has none."""
    sizes: npt.NDArray[np.int64]
    """``(N, 4)``: bytes of each of ``MEMBERS``."""
    truncated: bool
    """Whether the file ends in the middle."""

    def complete(self, required: str) -> npt.NDArray[np.int64]:
        """Positions of the samples that have a picture and the member ``required``."""
        wanted = self.offsets[:, [0, MEMBERS.index(required)]]
        return np.flatnonzero((wanted >= 0).all(axis=1))


def index_shard(path: str) -> ShardIndex:
    """Read a shard's index, from the cache where the file has not changed since.

    Args:
        path: An uncompressed tar.

    Raises:
        UserMistake: If the file is no uncompressed tar or cannot be read.
    """
    try:
        return scan_or_read(path, _cache_file(path, os.stat(path)), path)
    except OSError as error:
        raise UserMistake(f"shard {path} cannot be read: {error.strerror or error}") from None


def scan_or_read(path: str, cached: Path, name: str) -> ShardIndex:
    """Read a shard's index from a file where it has been kept, or scan the shard and keep its index there.

    Args:
        path: An uncompressed tar.
        cached: Where its index is kept.
        name: What the shard is called in messages.

    Raises:
        UserMistake: If the shard is no uncompressed tar.
        OSError: If it cannot be read.
    """
    found = _read_cached(cached)
    if found is None:
        found = _scan(path, os.stat(path).st_size, name)
        _write_cached(cached, found)
    return found


def _scan(path: str, file_size: int, name: str) -> ShardIndex:
    """Walk over the headers. Members are grouped by key wherever they lie; of two of one kind the first counts."""
    rows: dict[str, list[tuple[int, int]]] = {}
    truncated = False
    try:
        # "r:" is uncompressed only: a small compressed file could unfold to any size.
        with tarfile.open(path, "r:") as tar:
            members = iter(tar)
            while True:
                try:
                    member = next(members, None)
                except tarfile.TarError:
                    truncated = True
                    break
                if member is None:
                    # An archive ends with blocks of zeros; tarfile takes a file that ends in a header for the end too.
                    truncated |= tar.offset + tarfile.BLOCKSIZE > file_size
                    break
                key, _, suffix = member.name.rpartition(".")
                column = _COLUMN.get(suffix.lower())
                if column is None or not member.isreg() or member.sparse is not None:
                    continue
                if member.offset_data + member.size > file_size:
                    truncated = True
                    continue
                # A name that is no UTF-8 arrives with surrogates, which nothing downstream can encode.
                key = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                row = rows.setdefault(key, [(-1, 0)] * len(MEMBERS))
                if row[column][0] < 0:
                    row[column] = (member.offset_data, member.size)
                # tarfile keeps every header that it has read; a shard's memory is bounded by forgetting them.
                tar.members = []  # type: ignore[attr-defined]  # tarfile documents it only in its source
    except tarfile.TarError as error:
        raise UserMistake(f"shard {name} is not an uncompressed tar: {error}") from None
    table = np.array(list(rows.values()), dtype=np.int64).reshape(len(rows), len(MEMBERS), 2)
    return ShardIndex(list(rows), table[:, :, 0].copy(), table[:, :, 1].copy(), truncated)


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
            blob = arrays["keys"].tobytes().decode("utf-8")
            ends = arrays["ends"]
            keys = [blob[start:end] for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
            return ShardIndex(keys, arrays["offsets"], arrays["sizes"], bool(arrays["truncated"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # missing, or cut by a killed process: scanned again


def _write_cached(cached: Path, index: ShardIndex) -> None:
    blob = "".join(index.keys).encode("utf-8")
    arrays: dict[str, npt.NDArray[Any]] = {
        "keys": np.frombuffer(blob, dtype=np.uint8),
        "ends": np.cumsum([len(key) for key in index.keys], dtype=np.int64),
        "offsets": index.offsets,
        "sizes": index.sizes,
        "truncated": np.array(index.truncated),
    }
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, delete=False) as handle:
            np.savez(handle, allow_pickle=False, **arrays)
        os.replace(handle.name, cached)
    except OSError:
        return  # a cache that cannot be written costs a scan the next time, nothing else
