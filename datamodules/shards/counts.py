"""Read the number of pairs of each shard from a file, without opening the shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os.path import basename
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake
from ...files.reading import read_json, reading
from .remote import RemoteShards, fetch_bytes, is_remote, redacted

STATS = "stats"
_MAX_PAIRS = 1_000_000
"""Of a shard; none has more members."""
_AT_ONCE = 16


def read_counts(given: int | str, shards: Sequence[str], remote: RemoteShards) -> npt.NDArray[np.int64]:
    """Number of pairs of each shard, without opening one.

    Args:
        given: A number that holds for every shard; ``stats`` for the ``_stats.json`` that img2dataset leaves beside
            each (its ``successes``); or the path or URL of a JSON file that maps names to numbers, webdataset's
            ``sizes.json``.
        shards: Paths and URLs.
        remote: How remote files are fetched.

    Returns:
        ``(N,)``.

    Raises:
        UserMistake: If the counts cannot be had, or are no numbers.
    """
    if isinstance(given, int):
        counts = [_number(given, "data.counts")] * len(shards)
    elif given == STATS:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            counts = list(pool.map(lambda shard: _successes(shard, remote), shards))
    else:
        sizes = _object(given, remote)
        counts = [_size(sizes, shard, given) for shard in shards]
    return np.array(counts, dtype=np.int64)


def stats_of(shard: str) -> str:
    """The path or URL of the ``_stats.json`` beside a shard; the query of a URL is kept."""
    path, mark, query = shard.partition("?") if is_remote(shard) else (shard, "", "")
    return f"{path.removesuffix('.tar')}_stats.json{mark}{query}"


def _successes(shard: str, remote: RemoteShards) -> int:
    path = stats_of(shard)
    return _number(_object(path, remote).get("successes"), redacted(path))


def _size(sizes: dict[str, Any], shard: str, given: str) -> int:
    name = basename(shard.partition("?")[0] if is_remote(shard) else shard)
    if name not in sizes:
        raise UserMistake(f"data.counts: {redacted(given)} does not say how many pairs {name} has")
    return _number(sizes[name], f"{redacted(given)}, {name}")


def _object(path: str, remote: RemoteShards) -> dict[str, Any]:
    try:
        if is_remote(path):
            with reading("file", redacted(path)):
                content = json.loads(fetch_bytes(path, remote))
        else:
            content = read_json(path, "file")
    except UserMistake as error:
        raise UserMistake(f"data.counts: {error}") from error
    if not isinstance(content, dict):
        raise UserMistake(f"data.counts: {redacted(path)} is no JSON object of names and numbers")
    return content


def _number(value: object, where: str) -> int:
    # bool is an int; so is 10**400, which no array holds.
    # A shard of more would have an order of gigabytes, which is made at once.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_PAIRS:
        number = f"{value!r:.20}" if not isinstance(value, int) or abs(value) < 10**18 else "a huge number"
        raise UserMistake(f"data.counts: {where} says {number}, which is no number of pairs up to {_MAX_PAIRS:,}")
    return value
