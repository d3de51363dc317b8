"""List the pictures of a folder of classes, and what is skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ...contracts import UserMistake
from ...datamodules.shards.member_names import is_hidden_part
from ...files.reading import reading, shown
from .folder_walk import is_folder, is_within, kind_of, told, walked_folders

# Other formats are candidates too, so that they are counted as skipped and not left out in silence.
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
_LINKED_CLASS = "links to a folder above or to another class"


class ClassFolders(NamedTuple):
    """The pictures below the folders of classes."""

    files: list[tuple[Path, int]]
    """Pictures and their labels: the labels in order, and the paths of each."""
    left_out: Counter[str]
    """What was passed over, by a few words on it."""
    linked: int
    """Number of pictures in folders that are reached by a link."""
    own: int = 0
    """Number of pictures that lie in the folder of a class itself, and not in one below it."""

    @property
    def report(self) -> str:
        """What was left out and what was followed, for the user; empty where it is nothing."""
        parts = [told(self.left_out, self.linked)]
        if self.files and not self.own:
            below = shown(self.files[0][0].parent)
            parts.append(f"no picture lies in the folder of a class itself, and of {below} the name is not read")
        return "; ".join(part for part in parts if part)


def class_folders(folder: Path) -> list[str]:
    """The names of the sub-folders that are classes, in no order.

    A link is a class of its own, unless it leads to the folder itself, to one above or into another class: then it
    would give the pictures of other classes one more name.

    Raises:
        UserMistake: If the folder cannot be read.
    """
    with reading("folder", folder):
        found = [entry for entry in os.scandir(folder) if is_folder(entry) and not is_hidden_part(entry.name)]
        root = os.path.realpath(folder)
        real = {entry.name: os.path.realpath(entry.path) for entry in found}
        own = [real[entry.name] for entry in found if not entry.is_symlink()]
    others = [
        entry.name
        for entry in found
        if entry.is_symlink()
        and (is_within(root, real[entry.name]) or any(is_within(real[entry.name], one) for one in own))
    ]
    return [name for name in real if name not in others]


def class_pictures(folder: Path, classes: Sequence[tuple[int, str]]) -> ClassFolders:
    """Find the pictures of each class.

    Files and folders whose name begins with a dot are left out, and folders of the system's, such as thumbnails of a
    file manager. Links are followed, but for those to a folder above or to another class, and each folder is read once
    a class.

    Args:
        folder: Where the folders of the classes lie.
        classes: Label and sub-folder of each.

    Raises:
        UserMistake: If a folder cannot be read, or the folders are no classes: where captions lie beside the pictures,
            or they are those of splits, with the classes below them.
    """
    found = ClassFolders([], Counter(), 0)
    captioned = 0
    with reading("folder", folder):
        roots = {name: os.path.realpath(folder / name) for _, name in classes}
        for entry in os.scandir(folder):
            if is_hidden_part(entry.name):
                found.left_out["hidden files or folders"] += 1
            if is_hidden_part(entry.name) or entry.name in roots:
                continue
            if is_folder(entry):
                found.left_out[_LINKED_CLASS] += 1
            elif _is_picture(entry.name):
                found.left_out["pictures outside the folders of the classes"] += 1
        for label, name in classes:
            part, beside = _of_class(folder / name, set(roots.values()) - {roots[name]}, found.left_out)
            if not part.files:
                found.left_out[f"pictures in the folder of class {shown(name)}"] = 0
            found.files.extend((path, label) for path in part.files)
            found = found._replace(linked=found.linked + part.linked, own=found.own + part.own)
            captioned += beside
    if captioned and 2 * captioned >= len(found.files):
        first = shown(folder / classes[0][1])
        raise UserMistake(
            f"folder {shown(folder)} has captions beside {captioned:,} of {len(found.files):,} pictures, as "
            "img2dataset writes files: its folders are no classes. Make a shard of each folder, as by "
            f"tar -cf 00000.tar -C {first} ."
        )
    names = [name for _, name in classes]
    if found.files and not found.own and _SPLITS.issuperset(map(str.lower, names)):
        raise UserMistake(
            f"folder {shown(folder)} holds no classes but splits ({', '.join(sorted(map(shown, names)))}), with "
            f"folders of classes below: give one of them, such as {shown(folder / names[0])}"
        )
    return found


class _Part(NamedTuple):
    files: list[Path]
    linked: int
    own: int


def _of_class(root: Path, apart: Collection[str], left_out: Counter[str]) -> tuple[_Part, int]:
    """The pictures of a class, and how many have a caption of their name beside them."""
    files: list[Path] = []
    linked = captioned = 0
    for folder, by_link, names in walked_folders(root, left_out, apart):
        beside = set(names)
        for name in names:
            if _is_picture(name):
                files.append(folder / name)
                linked += by_link
                captioned += f"{Path(name).stem}.txt" in beside
            else:
                left_out[kind_of(name)] += 1
    return _Part(sorted(files), linked, sum(path.parent == root for path in files)), captioned


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
