"""A local copy of a shard that is no local file."""

from __future__ import annotations

import shutil
from hashlib import blake2b

import webdataset

from ...contracts import UserMistake
from ...files import open_whole
from .index import cache_folder


def fetch(url: str) -> str:
    """Copy what webdataset's ``gopen`` reads from a URL into the cache, once.

    The index addresses samples by their place in a file, so a shard has to lie in one. The caller decides whether the
    URL may be opened at all: ``pipe:`` runs a command.

    Args:
        url: A URL that ``webdataset.gopen`` knows.

    Returns:
        The path of the copy.

    Raises:
        UserMistake: If nothing can be read from it.
    """
    folder = cache_folder("shards")
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{blake2b(url.encode('utf-8', 'surrogateescape'), digest_size=20).hexdigest()}.tar"
    if copy.exists():
        return str(copy)
    try:
        with open_whole(copy) as handle, webdataset.gopen(url) as stream:
            shutil.copyfileobj(stream, handle)
            if not handle.tell():
                raise UserMistake(f"shard {url!r} is empty")
    except OSError as error:
        raise UserMistake(f"shard {url!r} cannot be read: {error}") from None
    return str(copy)
