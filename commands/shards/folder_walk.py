"""Walk over a folder and those below it, links included, and tell what is passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ...datamodules.shards.member_names import is_hidden_part
from ...files.printable import printable
from ...files.reading import reading

_MAX_NAMED = 5


class Walked(NamedTuple):
    """One folder of a walk."""

    path: Path
    by_link: bool
    """Whether it is reached by a link."""
    files: list[str]
    """The names of its files, in order; hidden ones are left out."""


def walked_folders(root: Path, left_out: Counter[str], apart: Collection[str] = ()) -> Iterator[Walked]:
    """Walk over a folder and those below it.

    Files and folders whose name begins with a dot are left out, and folders of the system's, such as thumbnails of a
    file manager. Links are followed, each folder is read once, and no link is followed to a folder that holds the link
    itself.

    Args:
        root: The folder.
        left_out: Where what is passed over is counted, by a few words on it.
        apart: Real paths of folders with pictures of others, which no link may lead to.

    Raises:
        UserMistake: If a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [(root, root.is_symlink())]
    while waiting:
        folder, by_link = waiting.pop()
        with reading("folder", folder):
            number = _number(folder)
            entries = [] if number in seen else sorted(os.scandir(folder), key=lambda entry: entry.name)
        if number in seen:
            left_out["folders that are linked a second time"] += 1
            continue
        seen.add(number)
        files = []
        for entry in entries:
            if is_hidden_part(entry.name):
                left_out["hidden files or folders"] += 1
            elif not is_folder(entry):
                if entry.is_symlink() and _is_apart(entry.path, apart):
                    left_out["links to a picture of another class"] += 1
                else:
                    files.append(entry.name)
            elif entry.is_symlink() and _number(entry.path) not in seen and _leads_out(entry.path, apart):
                left_out[f"links to a folder above{' or to another class' if apart else ''}"] += 1
            else:
                waiting.append((Path(entry.path), by_link or entry.is_symlink()))
        yield Walked(folder, by_link, files)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_within(path: str, folder: str) -> bool:
    """Whether a real path is that of a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def kind_of(name: str) -> str:
    """What a file that is no picture counts as: its suffix."""
    return f"{printable(Path(name).suffix.lower()[:20]) or 'other'} files"


def told(left_out: Counter[str], linked: int) -> str:
    """What was left out and how many pictures lie behind links, for the user; empty where it is nothing."""
    named = left_out.most_common(_MAX_NAMED)
    parts = [f"{count:,} {what}" for what, count in named]
    if more := left_out.total() - sum(count for _, count in named):
        parts.append(f"{more:,} of other kinds")
    said = f"left out: {', '.join(parts)}" if parts else ""
    links = f"taken from folders that are links: {linked:,} pictures" if linked else ""
    return "; ".join(part for part in (said, links) if part)


def _number(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _leads_out(link: str, apart: Collection[str]) -> bool:
    """Whether a link leads to a folder that it lies in, or to what lies in a folder apart, or to what holds one."""
    target, here = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return is_within(here, target) or any(is_within(one, target) for one in apart) or _is_apart(link, apart)


def _is_apart(link: str, apart: Collection[str]) -> bool:
    """Whether a link leads to what lies in a folder apart."""
    target = os.path.realpath(link)
    return any(is_within(target, one) for one in apart)
