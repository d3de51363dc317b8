"""Expand the folders, brace patterns and lists that a user gives to a list of shards."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from os.path import basename, dirname
from pathlib import Path

from braceexpand import UnbalancedBracesError  # type: ignore[attr-defined]

from ...contracts import UserMistake
from ...files.reading import reading, shown
from .braces import TooManyNames, expand_braces
from .remote import STORES, check_store, is_remote, redacted
from .same_files import real_paths

log = logging.getLogger(__name__)
_MAX_SHARDS = 1_000_000
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:(//)?")
_OTHER_TARS = re.compile(r"\.(tar|tar\.(gz|bz2|xz|zst|lz4|z)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
"""How a tar's name may end that is compressed, or that ``*.tar`` does not find."""


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
        UserMistake: If nothing is named, a local shard is missing, one is named twice, also by a link, or a URL is
            refused.
    """
    shards: list[str] = []
    for entry in [spec] if isinstance(spec, str) else list(spec):
        with reading("shard", redacted(entry)):
            shards.extend(_expand_one(entry, allow_pipe))
    if not shards:
        raise UserMistake(f"no shards in {spec!r}: give a folder with .tar files, a brace pattern or a list")
    seen: dict[str, str] = {}
    for shard, real in zip(shards, real_paths(shards), strict=True):
        if real in seen:
            other = f", as {shown(seen[real])} too" if seen[real] != shard else ""
            raise UserMistake(f"shard {shown(redacted(shard))} is named twice{other}")
        seen[real] = shard
    return shards


def _expand_one(entry: str, allow_pipe: bool) -> list[str]:
    if entry.startswith("pipe:"):
        if not allow_pipe:
            raise UserMistake(f"{entry!r} would run a command: pipe: shards are refused unless data.allow_pipe is true")
        return [entry]
    if not entry:
        raise UserMistake("the shard pattern is empty: give a folder with .tar files, a brace pattern or a list")
    if is_remote(entry):
        check_store(entry)
        return _expand_pattern(entry)
    if Path(entry).is_dir():
        return _of_folder(entry)
    if Path(entry).is_file():
        return [entry]  # its name, or a folder's, may have braces or a colon
    paths = _expand_pattern(entry)
    missing = _first_missing(paths)
    if missing is not None:
        if _SCHEME.match(entry):
            raise UserMistake(f"shard {redacted(entry)!r} is no URL that is read; there are {', '.join(STORES)}")
        given = f" (from {entry})" if missing != entry else ""
        wild = "; wildcards are not expanded: name the folder, or a brace pattern such as {00000..00019}.tar"
        raise UserMistake(f"shard {missing} does not exist{given}{wild if set('*?') & set(missing) else ''}")
    return paths


def _of_folder(folder: str) -> list[str]:
    """The shards of a folder, by name. Hidden ones are what macOS adds, or what is being written."""
    found = sorted(str(path) for path in Path(folder).glob("*.tar") if not path.name.startswith("."))
    tars = sorted(name for name in os.listdir(folder) if _OTHER_TARS.search(name) and not name.startswith("."))
    others = [name for name in tars if not name.endswith(".tar")]
    told = f"{len(others):,} such as {shown(others[0])}: a shard is an uncompressed .tar" if others else ""
    if not found:
        raise UserMistake(f"folder {folder} holds no .tar file{f', but {told}' if told else ''}")
    if told:
        log.warning("folder %s: left out are %s", shown(folder), told)
    return found


def _expand_pattern(pattern: str) -> list[str]:
    try:
        return expand_braces(pattern, _MAX_SHARDS)
    except UnbalancedBracesError:
        raise UserMistake(f"shard pattern {redacted(pattern)!r} has unbalanced braces") from None
    except TooManyNames:
        raise UserMistake(
            f"shard pattern {redacted(pattern)!r:.200} stands for more than {_MAX_SHARDS:,} shards"
        ) from None


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
