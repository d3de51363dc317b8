"""Local copies of remote shards, shared by the processes of a machine and kept to a size."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from ...contracts import UserMistake
from .index import ShardIndex, cache_folder, scan_or_read
from .remote import RemoteShards, fetch, redacted

_POLL_SECONDS = 0.05


class ShardCache:
    """A folder of copies.

    The index addresses samples by their position in a file, so a shard has to lie in one. A copy is fetched by one
    process while the others that want it wait. A reader holds a shared lock (``flock``), and what is locked is not
    evicted; of the rest the least recently used go first. A process that dies leaves no lock. Only what is a tar is
    kept, and one that breaks off only if a second try brought the same: a web page instead of it, or a connection that
    was lost, is asked for again.

    Args:
        remote: How copies are fetched, where they lie, and how much of them is kept.
    """

    def __init__(self, remote: RemoteShards) -> None:
        self._remote = remote
        self._folder = cache_folder("shards") if remote.cache is None else Path(remote.cache)
        self._limit = int(remote.cache_gb * 1e9)

    def open(self, url: str) -> int:
        """Open a copy, fetched if there is none.

        Args:
            url: As ``fetch`` takes it.

        Returns:
            A file descriptor. The copy stays until it is closed.

        Raises:
            ShardUnavailable: If the shard cannot be fetched.
            OSError: If the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        copy = self._copy(url)
        while True:
            file = _open_locked(copy)
            if file is None:
                file = self._fetch(url, copy)
            if file is not None:
                return file

    def index(self, url: str, file: int) -> ShardIndex:
        """The index of a copy that is open; it is kept beside the copy, and goes with it."""
        copy = self._copy(url)
        return scan_or_read(str(copy), _index_file(copy, os.fstat(file)), redacted(url))

    def _accept(self, url: str, copy: Path) -> Callable[[Path], None]:
        """What looks at a copy before it gets its name: it is a tar that is whole, or as long as it was before."""
        sizes: list[int] = []

        def accept(part: Path) -> None:
            status = part.stat()
            index = _index_file(copy, status)
            try:
                fault = scan_or_read(str(part), index, "").fault
            except UserMistake as error:
                raise OSError(" ".join(str(error).split())) from error
            sizes.append(status.st_size)
            if fault and sizes[-2:-1] != sizes[-1:]:
                index.unlink(missing_ok=True)
                raise OSError(fault)

        return accept

    def _copy(self, url: str) -> Path:
        return self._folder / f"{blake2b(url.encode('utf-8', 'surrogateescape'), digest_size=20).hexdigest()}.tar"

    def _fetch(self, url: str, copy: Path) -> int | None:
        """Fetch a copy; None where another process has done so in the meantime."""
        part = copy.with_suffix(".part")
        file = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _lock_alone(file, part):
                os.close(file)
                return None
            try:
                self._evict()
                fetch(url, part, self._remote, self._accept(url, copy))
                part.rename(copy)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            fcntl.flock(file, fcntl.LOCK_SH)
        except BaseException:
            os.close(file)
            raise
        self._evict()
        return file

    def _evict(self) -> None:
        """Remove the least recently used copies that are not being read, until the folder has its size."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # gone since
                status = path.stat()
                found.append((status.st_atime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            if path.suffix in (".tar", ".part") and _remove_unread(path):
                total -= size
                for index in self._folder.glob(f"{path.stem}.*.npz"):
                    index.unlink(missing_ok=True)


def _index_file(copy: Path, status: os.stat_result) -> Path:
    return copy.with_suffix(f".{status.st_ino}-{status.st_mtime_ns}.npz")


def _lock_alone(file: int, part: Path) -> bool:
    """Take the lock of a file that is to be fetched; False when another process has fetched it, or given up."""
    while _is_at(file, part):
        # Without blocking: the other one keeps its lock, as a reader of what it has fetched.
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _is_at(file, part)
        time.sleep(_POLL_SECONDS)
    return False


def _open_locked(copy: Path) -> int | None:
    """Open a copy with a shared lock; None where there is none."""
    try:
        file = os.open(copy, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    if not _is_at(file, copy):  # evicted between the two
        os.close(file)
        return None
    # When it was used last. The time of change stays: it names the index.
    os.utime(file, ns=(time.time_ns(), os.fstat(file).st_mtime_ns))
    return file


def _remove_unread(path: Path) -> bool:
    """Remove a copy that is being neither read nor fetched."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(file, path):
            path.unlink()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still what the path names."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
