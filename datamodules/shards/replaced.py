"""Compare the shards of a resumed run with those of its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...files.fingerprints import fingerprint
from .remote import redacted
from .shard_set import ShardSet

_MAX_NAMED = 3


def shards_state(shards: ShardSet) -> dict[str, Any]:
    """What distinguishes these shards from others, as plain data: their names without folders, and what they are like.

    A shard that was not indexed, as it is counted or lies on a server, is not read for it: it is known by its name and
    number of samples.

    Args:
        shards: All samples that may be streamed.

    Raises:
        OSError: If a shard cannot be read any more.
    """
    kinds = [
        f"{count} samples" if shards.counted or shard in shards.remote else fingerprint(path)
        for shard, (path, count) in enumerate(zip(shards.paths, shards.counts.tolist(), strict=True))
    ]
    names = [os.path.basename(redacted(path)) for path in shards.paths]
    return {"pairs": len(shards), "names": names, "kinds": kinds}


def changed_shards(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words what differs between two states; empty where nothing does.

    Args:
        before: As ``shards_state`` gave it, when a checkpoint was written.
        now: Likewise.
    """
    old, new = (list(zip(state["names"], state["kinds"], strict=True)) for state in (before, now))
    gone, more = [pair for pair in old if pair not in set(new)], [pair for pair in new if pair not in set(old)]
    replaced = sorted({name for name, _ in gone} & {name for name, _ in more})
    changes = [
        _names("other content in", replaced),
        _names("gone:", [name for name, _ in gone if name not in replaced]),
        _names("new:", [name for name, _ in more if name not in replaced]),
    ]
    if old != new and not any(changes):
        changes.append("another order of the shards")
    if before["pairs"] != now["pairs"]:
        changes.append(f"{now['pairs']:,} pairs, not {before['pairs']:,}")
    return "; ".join(part for part in changes if part)


def _names(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return f"{what} {', '.join(map(repr, names[:_MAX_NAMED]))}{more}" if names else ""
