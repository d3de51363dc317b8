"""From what a user writes to a list of shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from ...contracts import UserMistake
from .fetch import fetch

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(//)?")


def expand_shards(spec: str | Sequence[str], allow_pipe: bool = False) -> list[str]:
    """List the shards that a folder, a brace pattern, a path or a list of these stands for.

    Nothing is expanded but braces: no environment variable, no ``~``, no wildcard.

    Args:
        spec: A folder (its ``*.tar``, by name), a path, a pattern such as ``train/{00000..00019}.tar``, or a list.
        allow_pipe: Whether ``pipe:COMMAND`` is allowed. It runs the command in a shell, once, and keeps what it prints
            in the cache.

    Returns:
        Paths of existing files, in the order given.

    Raises:
        UserMistake: If nothing is named, a shard is missing or named twice, or a URL is refused.
    """
    shards: list[str] = []
    for entry in [spec] if isinstance(spec, str) else list(spec):
        shards.extend(_expand_one(entry, allow_pipe))
    if not shards:
        raise UserMistake(f"no shards in {spec!r}: give a folder with .tar files, a brace pattern or a list")
    seen: set[str] = set()
    for shard in shards:
        if shard in seen:
            raise UserMistake(f"shard {shard} is named twice")
        seen.add(shard)
    return shards


def _expand_one(entry: str, allow_pipe: bool) -> list[str]:
    if entry.startswith("pipe:"):
        if not allow_pipe:
            raise UserMistake(f"{entry!r} would run a command: pipe: shards are refused unless data.allow_pipe is true")
        return [fetch(entry)]
    if _SCHEME.match(entry):
        raise UserMistake(f"shard {entry!r} is a URL: copy it here first, or read it by pipe: with data.allow_pipe")
    if not entry:
        raise UserMistake("the shard pattern is empty: give a folder with .tar files, a brace pattern or a list")
    if Path(entry).is_dir():
        found = sorted(str(path) for path in Path(entry).glob("*.tar"))
        if not found:
            raise UserMistake(f"folder {entry} holds no .tar file")
        return found
    try:
        paths = list(braceexpand(entry))
    except UnbalancedBracesError:
        raise UserMistake(f"shard pattern {entry!r} has unbalanced braces") from None
    for path in paths:
        if not Path(path).is_file():
            raise UserMistake(f"shard {path} does not exist" + (f" (from {entry})" if path != entry else ""))
    return paths
