"""The pictures of a folder, of shards or of a zero-shot set, one after the other. Nothing here trusts what it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...contracts import UserMistake
from ...datamodules.bad_samples import BadSample
from ...datamodules.shards import ShardSet, expand_shards
from ...datamodules.shards.member_names import MAX_BYTES
from ...datamodules.shards.same_files import first_in_both
from ...datamodules.zero_shot import ZeroShotSet
from ...files.reading import reading, shown
from ..shards.folder_walk import kind_of, told, walked_folders

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_CLASSNAMES = "classnames.txt"


class PictureSource(ABC):
    """Pictures by key, as the files that they are.

    Args:
        files: Those that it reads, or the shards' addresses.
    """

    classnames: list[str] | None = None
    """The classes that the source names itself; None where it does not."""
    templates: list[str] | None = None
    """The captions that it names itself, with ``{c}`` for a class."""
    report = ""
    """What was passed over and which links were followed, for the user; empty where it is nothing."""

    def __init__(self, files: Iterable[str | Path]) -> None:
        self.files = [str(file) for file in files]

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, bytes | BadSample]]:
        """Key and file of each, or why it cannot be read."""


class FolderPictures(PictureSource):
    """The pictures of a folder and of those below it, by their paths. What begins with a dot is left out.

    Links are followed, and each folder is read once.

    Args:
        folder: Where they lie.

    Raises:
        UserMistake: If there is none, or a folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found: list[Path] = []
        left_out: Counter[str] = Counter()
        linked = 0
        for path, by_link, names in walked_folders(folder, left_out):
            for name in names:
                if Path(name).suffix.lower() in _SUFFIXES:
                    found.append(path / name)
                    linked += by_link
                else:
                    left_out[kind_of(name)] += 1
        super().__init__(sorted(found))
        self.report = told(left_out, linked)
        if not found:
            rest = f"; {self.report}" if self.report else ""
            raise UserMistake(f"{shown(folder)} has no picture (JPEG, PNG or WebP) and no shard (.tar){rest}")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[str, bytes | BadSample]]:
        for path in map(Path, self.files):
            yield str(path.relative_to(self._folder)), _read(path)


class ShardPictures(PictureSource):
    """The pictures of shards, by their keys.

    Args:
        shards: They.
    """

    def __init__(self, shards: ShardSet) -> None:
        super().__init__(shards.paths)
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[tuple[str, bytes | BadSample]]:
        for shard, keys in enumerate(self._shards.keys()):
            for position, key in enumerate(keys):
                try:
                    yield key, self._shards.read(shard, position, "picture")
                except BadSample as fault:
                    yield key, fault


def opened_pictures(source: str, clean: str | None) -> tuple[PictureSource, PictureSource | None]:
    """Find the pictures that are judged and those that are known to be clean, and say what was passed over.

    Args:
        source: As ``open_pictures`` takes it.
        clean: Likewise; None where there are none.

    Raises:
        UserMistake: As ``open_pictures`` and ``open_clean``.
    """
    judged = open_pictures(source)
    trusted = open_clean(clean, judged) if clean is not None else None
    for given, found in ((source, judged), (clean, trusted)):
        if given is not None and found is not None and found.report:
            print(f"{shown(given)}: {found.report}")
    return judged, trusted


def open_pictures(source: str) -> PictureSource:
    """Find pictures.

    Args:
        source: A zero-shot set, a folder of shards or of pictures, or shards as ``expand_shards`` takes them.

    Raises:
        UserMistake: If there are none.
    """
    with reading("pictures", source):
        folder = Path(source).expanduser()
        is_folder = folder.is_dir()
        if not folder.suffix and set("{[*:").isdisjoint(source) and not folder.exists():
            raise UserMistake(f"folder {shown(source)} does not exist")
    if not is_folder:
        return _of_shards(source)
    if (folder / _CLASSNAMES).is_file():
        zero_shot = ZeroShotSet(str(folder))
        found: PictureSource = ShardPictures(zero_shot.shards)
        found.classnames, found.templates = zero_shot.class_prompts.classnames, zero_shot.templates
        return found
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if not any(name.endswith(".tar") for name in names):
        return FolderPictures(folder)
    if loose := sum(Path(name).suffix.lower() in _SUFFIXES for name in names):
        raise UserMistake(
            f"{shown(folder)} has shards (.tar) and {loose:,} pictures beside them: put either into a folder of its "
            "own, or name the shards themselves"
        )
    return _of_shards(str(folder))


def open_clean(source: str, judged: PictureSource) -> PictureSource:
    """Find pictures that are known to be clean, and see that they are others than those that are judged by them.

    Args:
        source: As ``open_pictures`` takes it.
        judged: The others.

    Raises:
        UserMistake: If there are none, or any file is read for both.
    """
    clean = open_pictures(source)
    both = first_in_both(judged.files, clean.files)
    if both is not None:
        raise UserMistake(
            f"--clean has {shown(both)}, which is among the pictures too: what is judged is no measure of itself"
        )
    return clean


def _of_shards(source: str) -> PictureSource:
    """All pictures of shards, whatever lies beside them; a mask or the like beside a picture is none."""
    shards = ShardSet(expand_shards(source), "picture")
    shards.check_not_empty()
    found = ShardPictures(shards)
    if shards.incomplete:
        found.report = f"left out: {shards.incomplete:,} samples without a picture, or cut off ({shards.found_members})"
    return found


def _read(path: Path) -> bytes | BadSample:
    try:
        if not path.is_file():
            return BadSample("no file", "it is none that can be read from its beginning to its end")
        if path.stat().st_size > MAX_BYTES["picture"]:
            return BadSample("oversized picture", f"{path.stat().st_size} bytes")
        return path.read_bytes()
    except OSError as error:
        return BadSample("unreadable picture", str(error))
