"""List the pictures of a folder of classes, and what is skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...contracts import UserMistake
from ...printable import printable
from ...reading import reading, shown

# Other formats are candidates too, so that they are counted as skipped and not left out in silence.
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
_MAX_NAMED = 5


class ClassFolders(NamedTuple):
    """The pictures below the folders of classes."""

    files: list[tuple[Path, int]]
    """Pictures and their labels: the labels in order, and the paths of each."""
    left_out: Counter[str]
    """What was passed over, by a few words on it."""
    linked: int
    """Number of pictures in folders that are reached by a link."""

    @property
    def report(self) -> str:
        """What was left out and what was followed, for the user; empty where it is nothing."""
        parts = [f"{count:,} {what}" for what, count in self.left_out.most_common(_MAX_NAMED)]
        left_out = f"left out: {', '.join(parts)}" if parts else ""
        linked = f"taken from folders that are links: {self.linked:,} pictures" if self.linked else ""
        return "; ".join(part for part in (left_out, linked) if part)


def class_pictures(folder: Path, classes: Sequence[tuple[int, str]]) -> ClassFolders:
    """Find the pictures of each class.

    Files and folders whose name begins with a dot are left out, such as thumbnails of a file manager. Links are
    followed, and each folder is read once a class, so links that lead round in a circle end.

    Args:
        folder: Where the folders of the classes lie.
        classes: Label and sub-folder of each.

    Raises:
        UserMistake: If a folder cannot be read, or captions lie beside the pictures: then the folders are no classes.
    """
    found = ClassFolders([], Counter(), 0)
    captioned = 0
    with reading("folder", folder):
        outside = [entry.name for entry in os.scandir(folder) if _is_picture(entry.name) and not entry.is_dir()]
        if outside:
            found.left_out["pictures outside the folders of the classes"] += len(outside)
        for label, name in classes:
            part, beside = _of_class(folder / name, found.left_out)
            if not part.files:
                found.left_out[f"pictures in the folder of class {shown(name)}"] = 0
            found.files.extend((path, label) for path in part.files)
            found = found._replace(linked=found.linked + part.linked)
            captioned += beside
    if captioned and 2 * captioned >= len(found.files):
        first = shown(folder / classes[0][1])
        raise UserMistake(
            f"folder {shown(folder)} has captions beside {captioned:,} of {len(found.files):,} pictures, as "
            "img2dataset writes files: its folders are no classes. Make a shard of each folder, as by "
            f"tar -cf 00000.tar -C {first} ."
        )
    return found


class _Part(NamedTuple):
    files: list[Path]
    linked: int


def _of_class(root: Path, left_out: Counter[str]) -> tuple[_Part, int]:
    """The pictures of a class, and how many have a caption of their name beside them."""
    files: list[Path] = []
    linked = captioned = 0
    seen: set[tuple[int, int]] = set()
    waiting = [(root, root.is_symlink())]
    while waiting:
        folder, by_link = waiting.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            left_out["folders that are linked a second time"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.name.startswith("."):
                left_out["hidden files or folders"] += 1
            elif entry.is_dir():
                waiting.append((Path(entry.path), by_link or entry.is_symlink()))
            elif _is_picture(entry.name):
                files.append(Path(entry.path))
                linked += by_link
                captioned += f"{Path(entry.name).stem}.txt" in names
            else:
                left_out[f"{printable(Path(entry.name).suffix.lower()[:20]) or 'other'} files"] += 1
    return _Part(sorted(files), linked), captioned


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
