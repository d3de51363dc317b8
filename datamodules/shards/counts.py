"""How many pairs each shard has, where somebody has counted them before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os.path import basename
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake
from .remote import RemoteShards, fetch_bytes, is_remote, redacted

STATS = "stats"
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
    read: Callable[[], bytes] = (lambda: fetch_bytes(path, remote)) if is_remote(path) else Path(path).read_bytes
    try:
        content = json.loads(read())
    except UserMistake as error:
        raise UserMistake(f"data.counts: {error}") from error
    except OSError as error:
        raise UserMistake(f"data.counts: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserMistake(f"data.counts: {redacted(path)} is no JSON") from error
    if not isinstance(content, dict):
        raise UserMistake(f"data.counts: {redacted(path)} is no JSON object of names and numbers")
    return content


def _number(value: object, where: str) -> int:
    # bool is an int; so is 10**400, which no array holds.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise UserMistake(f"data.counts: {where} says {value!r:.20}, which is no number of pairs")
    return value
