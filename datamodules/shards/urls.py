"""Expand the folders, brace patterns and lists that a user gives to a list of shards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from os.path import basename, dirname
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from ...contracts import UserMistake
from ...files.reading import reading
from .remote import STORES, check_store, is_remote, redacted

_MAX_SHARDS = 1_000_000
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(//)?")


def expand_shards(spec: str | Sequence[str], allow_pipe: bool = False) -> list[str]:
    """List the shards that a folder, a brace pattern, a path or a list of these stands for.

    Nothing is expanded but braces, and these not in what exists as it is written: no environment variable, no ``~``, no
    wildcard.

    Args:
        spec: A folder (its ``*.tar``, by name), a path, a pattern such as ``train/{00000..00019}.tar``, a URL of
            ``STORES``, which may be a pattern too, or a list.
        allow_pipe: Whether ``pipe:COMMAND`` is allowed. It runs the command in a shell.

    Returns:
        Paths of existing files, and URLs, in the order given. No shard is opened.

    Raises:
        UserMistake: If nothing is named, a local shard is missing, one is named twice, or a URL is refused.
    """
    shards: list[str] = []
    for entry in [spec] if isinstance(spec, str) else list(spec):
        with reading("shard", redacted(entry)):
            shards.extend(_expand_one(entry, allow_pipe))
    if not shards:
        raise UserMistake(f"no shards in {spec!r}: give a folder with .tar files, a brace pattern or a list")
    seen: set[str] = set()
    for shard in shards:
        if shard in seen:
            raise UserMistake(f"shard {redacted(shard)} is named twice")
        seen.add(shard)
    return shards


def _expand_one(entry: str, allow_pipe: bool) -> list[str]:
    if entry.startswith("pipe:"):
        if not allow_pipe:
            raise UserMistake(f"{entry!r} would run a command: pipe: shards are refused unless data.allow_pipe is true")
        return [entry]
    if is_remote(entry):
        check_store(entry)
    elif _SCHEME.match(entry):
        raise UserMistake(f"shard {redacted(entry)!r} is no URL that is read; there are {', '.join(STORES)}")
    if not entry:
        raise UserMistake("the shard pattern is empty: give a folder with .tar files, a brace pattern or a list")
    if Path(entry).is_dir():
        # Hidden ones are what macOS adds, or what is being written.
        found = sorted(str(path) for path in Path(entry).glob("*.tar") if not path.name.startswith("."))
        if not found:
            raise UserMistake(f"folder {entry} holds no .tar file")
        return found
    if not is_remote(entry) and Path(entry).is_file():
        return [entry]  # its name, or a folder's, may have braces
    try:
        paths = list(islice(braceexpand(entry), _MAX_SHARDS + 1))
    except UnbalancedBracesError:
        raise UserMistake(f"shard pattern {entry!r} has unbalanced braces") from None
    if len(paths) > _MAX_SHARDS:
        raise UserMistake(f"shard pattern {entry!r} stands for more than {_MAX_SHARDS:,} shards")
    missing = None if is_remote(entry) else _first_missing(paths)
    if missing is not None:
        raise UserMistake(f"shard {missing} does not exist" + (f" (from {entry})" if missing != entry else ""))
    return paths


def _first_missing(paths: Iterable[str]) -> str | None:
    """The first path at which there is nothing. Each folder is listed once, which takes a hundred thousand no time."""
    listed: dict[str, set[str]] = {}
    for path in paths:
        folder = dirname(path)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder or ".")) if Path(folder).is_dir() else set()
        if basename(path) not in listed[folder]:
            return path
    return None
