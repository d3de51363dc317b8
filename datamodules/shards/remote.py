"""Files that lie on a server: fetched with retries, and given up in time."""

from __future__ import annotations

import errno
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import aiohttp
import fsspec
import webdataset

from ...contracts import UserMistake

STORES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf")
"""Schemes of URLs that are read. fsspec knows more, among them some that read local files or unpack archives."""

_MAX_RETRIES = 20
"""The pause doubles each time."""
_MIN_ROOM = 1 << 30
"""Bytes that a file of unknown length may always have, however small the folder of copies is kept."""
_MAX_BYTES = 64 << 20
"""Of a file that is held in memory."""
_MIN_RATE = 1024
"""Bytes per second below which a server is taken to stall: one that drips would hold up every rank for days."""
_SECRETS = re.compile(r"(?<=://)[^/@\s'\"]+@|\?[^\s'\")]*")


@dataclass(frozen=True)
class RemoteShards:
    """How shards are read that lie on a server or in an object store.

    Attributes:
        retries: Further attempts at a file after the first, with pauses of about 0.5, 1, 2, ... seconds.
        timeout: Seconds without data after which a try is given up.
        cache_gb: Size that the folder of copies is kept to, in gigabytes of 10^9 bytes. What is being read is kept
            even above it: at most the shards of two shuffle windows of each worker on the machine.
        cache: The folder of copies, which all processes of a machine share; in the user's cache unless given.
    """

    retries: int = 3
    timeout: float = 10.0
    cache_gb: float = 50.0
    cache: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.retries <= _MAX_RETRIES or not 0 < self.timeout < inf or not 0 <= self.cache_gb < inf:
            raise UserMistake(
                f"data.remote: retries is in [0, {_MAX_RETRIES}], cache_gb at least 0, timeout above 0, both finite"
            )


class ShardUnavailable(UserMistake):
    """A file that cannot be fetched, however often it is tried."""


def is_remote(path: str) -> bool:
    """Whether a shard is no local file: a URL, or ``pipe:`` and a command."""
    return path.startswith("pipe:") or path.partition("://")[0] in STORES


def redacted(text: str) -> str:
    """A text without what may be a secret in a URL: the user's name and password, and the query."""
    return _SECRETS.sub("", text)


def check_store(url: str) -> None:
    """Check that the library of an object store is there, before anything is read.

    Raises:
        UserMistake: If it is not.
    """
    try:
        fsspec.get_filesystem_class(url.partition(":")[0])
    except ImportError as error:
        raise UserMistake(f"shard {redacted(url)}: {error}") from error


def fetch(
    url: str, path: Path, remote: RemoteShards, accept: Callable[[Path], None] | None = None, most: int | None = None
) -> None:
    """Copy a remote file to a local one, which is written anew at each try.

    Args:
        url: A URL of ``STORES``, or ``pipe:`` and a command, which a shell runs: the caller decides whether it may.
        path: The local file.
        remote: How often to try, and for how long.
        accept: Looks at what has come; an ``OSError`` that it raises is another reason to try again.
        most: Bytes that the file may have. Unless given, what the server says that it has, if the disk has room for
            it; where it says nothing, as much as the folder of copies is kept to, or 1 GiB where that is less.

    Raises:
        ShardUnavailable: If all attempts have failed, or one in a way that another would too.
    """
    started, pauses = time.monotonic(), SystemRandom()  # the global generator is the training's
    for attempt in range(remote.retries + 1):
        try:
            _try(url, path, remote.timeout, _Progress(path.parent, most, max(int(remote.cache_gb * 1e9), _MIN_ROOM)))
            if not path.stat().st_size:
                raise OSError("it is empty")
            if accept is not None:
                accept(path)
            return
        except Exception as error:  # each store has errors of its own
            late = f"no data for {remote.timeout:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            reason = redacted(_reason(error)) or late
            if attempt == remote.retries or _is_final(error):
                tries = f"{attempt + 1} {'tries' if attempt else 'try'} in {time.monotonic() - started:.0f} s"
                raise ShardUnavailable(f"shard {redacted(url)} cannot be read ({tries}): {reason}") from error
        time.sleep(pauses.uniform(0.75, 1.25) * 0.5 * 2**attempt)


def fetch_bytes(url: str, remote: RemoteShards) -> bytes:
    """The content of a small remote file. Errors as ``fetch``."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        fetch(url, path, remote, most=_MAX_BYTES)
        return path.read_bytes()


class _Progress(fsspec.Callback):  # type: ignore[misc]  # fsspec ships no types
    """Counts what has come, and ends a transfer that is too large or given up, from inside."""

    def __init__(self, folder: Path, most: int | None, most_of_unknown: int) -> None:
        super().__init__()
        self._folder, self._most, self._most_of_unknown = folder, most, most_of_unknown
        self.given_up = False

    def set_size(self, size: int | None) -> None:
        """What the server says."""
        super().set_size(size)
        room = shutil.disk_usage(self._folder).free if self._most is None else self._most
        if size is not None and size > room:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {room:,} that there is room for")

    def relative_update(self, inc: int = 1) -> None:
        """A part has come."""
        super().relative_update(inc)
        if self.given_up:
            raise OSError("given up")
        most = self._most or (self._most_of_unknown if self.size is None else self.size)
        if self.value > most:
            raise OSError(errno.EFBIG, f"it does not end within {most:,} bytes (data.remote.cache_gb)")


def _try(url: str, path: Path, timeout: float, progress: _Progress) -> None:
    if url.startswith("pipe:"):
        _watch(lambda: _copy_pipe(url, path, progress), timeout, progress)
        return
    scheme, options = url.partition(":")[0], {}
    if scheme in ("http", "https"):
        # trust_env: proxies from the environment, passwords from ~/.netrc.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        # The file as it lies there: what a server compresses on the way has another size than it says.
        as_it_is = {"headers": {"Accept-Encoding": "identity"}, "auto_decompress": False}
        options["client_kwargs"] = {"timeout": limits, "trust_env": True, "raise_for_status": _whole, **as_it_is}
    # An instance of its own: the cached ones do not outlive a fork.
    store = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    _watch(lambda: store.get_file(url, str(path), callback=progress), timeout, progress)


async def _whole(response: aiohttp.ClientResponse) -> None:
    """Refuse the part of a file: nobody asked for one, and it would pass for the whole."""
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        raise aiohttp.ClientResponseError(
            response.request_info, response.history, status=response.status, message="with a part of the file"
        )


def _copy_pipe(url: str, path: Path, progress: fsspec.Callback) -> None:
    with path.open("wb") as out, webdataset.gopen(url) as stream:
        while chunk := stream.read(1 << 20):
            out.write(chunk)
            progress.relative_update(len(chunk))


def _watch(transfer: Callable[[], Any], timeout: float, progress: _Progress) -> None:
    """Run a transfer in a thread, which is abandoned when it stalls: stores differ in what they let one limit."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            transfer()
        except BaseException as error:  # raised again below
            failed.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    seen = 0
    while True:
        # A moment more than the timeout of the library itself, so that its error, which says more, comes first.
        thread.join(timeout + 1)
        if not thread.is_alive():
            break
        if progress.value - seen < _MIN_RATE * timeout:
            progress.given_up = True
            raise TimeoutError(f"{progress.value - seen} bytes in {timeout:g} s")
        seen = progress.value
    if failed:
        raise failed[0]


def _reason(error: Exception) -> str:
    """What an error of a store says; the library of HTTP names no more than the URL where a server has no such file."""
    if isinstance(error, aiohttp.TooManyRedirects):
        return f"the server redirects without end ({len(error.history)} times)"
    if isinstance(error, aiohttp.InvalidURL) and "Redirect" in type(error).__name__:
        return f"the server redirects to {error.url}, which is no address of a web server"
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return "there is no such file (404 of a web server)"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the server answers {error.status} {error.message}"
    return str(error)


def _is_final(error: Exception) -> bool:
    """Whether another try would fail in the same way."""
    if isinstance(error, aiohttp.TooManyRedirects):
        return True
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or isinstance(error, (FileNotFoundError, PermissionError, ImportError))
