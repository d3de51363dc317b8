"""Pairs that are to be left out of training, by key: those of a manifest, of a table of suspects, or of a list."""

from __future__ import annotations

import logging
from collections.abc import Set

from ..contracts import DECISIONS, UserMistake
from ..run_folder.keys import read_keys
from .shards import ShardSet

log = logging.getLogger(__name__)

OPTION = "data.exclude"


def excluded_keys(path: str) -> frozenset[str]:
    """Read the keys of the pairs that are to be left out.

    Args:
        path: What `run_folder.keys.read_keys` reads; of a table all but what was found benign.

    Returns:
        The keys, at least one.

    Raises:
        UserMistake: If there is no such file, or it names no keys.
    """
    return read_keys(path, OPTION, lambda decision: decision != DECISIONS[0])


def leave_out(shards: ShardSet, keys: Set[str], path: str) -> ShardSet:
    """The same shards without the pairs with these keys.

    Args:
        shards: The pairs.
        keys: Those to leave out.
        path: The file that names them, for the messages.

    Raises:
        UserMistake: If none of the keys is in the shards.
    """
    missing = len(keys) - len(shards.locate(keys))
    if missing == len(keys):
        raise UserMistake(f"{OPTION}: none of the {len(keys):,} keys that {path} names is in these shards")
    if missing:
        log.warning("%d of the %d keys that %s names are not in these shards", missing, len(keys), path)
    return shards.without(keys)
