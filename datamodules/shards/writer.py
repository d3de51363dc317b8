"""Writes the two layouts of shards that the field uses, each file whole or not at all.

Training shards are written as img2dataset writes them, zero-shot sets as CLIP-benchmark's webdataset sets stand on the
hub. Equal input gives equal bytes: members carry no time and no owner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unicodedata import category

from webdataset.writer import TarWriter

from ...contracts import UserMistake
from ...files.writing import open_whole, write_text
from ..templates import check_templates
from .encoded import EncodedPicture
from .member_names import MAX_BYTES

T = TypeVar("T")

_NO_TEXT = ("Cc", "Cs")
"""Control characters, and halves of characters."""


class Pair(NamedTuple):
    """A training pair."""

    picture: EncodedPicture
    caption: str
    meta: dict[str, Any] | None = None
    """Plain data for the JSON member, beside key, caption and size."""


class Labelled(NamedTuple):
    """A picture of a zero-shot set."""

    picture: EncodedPicture
    label: int
    """Index into the class names."""


class Skipped(NamedTuple):
    """A sample that cannot be written. It takes an index, so that the keys of the others do not depend on it."""

    kind: str
    """What is wrong, the same words for every sample with the same fault."""
    where: str
    """Where it stands, safe to print."""


@contextmanager
def open_shard(path: Path) -> Iterator[TarWriter]:
    """Open a shard that gets its name only when the block ends well.

    ``write({"__key__": key, "jpg": data, ...})`` adds a sample; the values are bytes, as nothing is encoded here.
    """
    with (
        open_whole(path) as stream,
        TarWriter(stream, user="", group="", mode=0o644, mtime=0, encoder=False) as shard,
    ):
        yield shard


def write_training_shards(folder: Path, pairs: Iterable[Pair | Skipped], shard_size: int) -> int:
    """Write ``00000.tar``, ``00001.tar``, ... with ``00000_stats.json``, ... beside them, as img2dataset does.

    A key is the number of the shard and the index in it, skipped samples counted, so it leads back to the source.
    If ``pairs`` raises, the shards that were written are removed again.

    Args:
        folder: Made if it is not there.
        pairs: Read once, in order.
        shard_size: Samples per shard, skipped ones counted.

    Returns:
        The number of shards.

    Raises:
        UserMistake: If the folder holds anything, ``shard_size`` is not positive, or a sample is larger than what is
            read.
    """
    _make_empty_folder(folder, shard_size)
    # As in img2dataset the width follows the size; four digits are the width for its 10,000.
    digits = max(4, len(str(shard_size - 1)))
    shards = 0
    with _removed_on_failure() as written:
        for shard, rows in enumerate(_shards(pairs, shard_size)):
            path = folder / f"{shard:05d}.tar"
            count = successes = 0
            with open_shard(path) as tar:
                for count, pair in enumerate(rows, start=1):
                    if isinstance(pair, Pair):
                        tar.write(_readable(_training_sample(f"{shard:05d}{count - 1:0{digits}d}", pair)))
                        successes += 1
            written.append(path)
            stats = folder / f"{shard:05d}_stats.json"
            write_text(stats, json.dumps({"count": count, "successes": successes}, indent=4))
            written.append(stats)
            shards = shard + 1
    return shards


def write_zero_shot_set(
    folder: Path,
    samples: Iterable[Labelled | Skipped],
    classnames: Sequence[str],
    templates: Sequence[str],
    split: str = "test",
    shard_size: int = 10_000,
) -> int:
    """Write a zero-shot classification set in CLIP-benchmark's webdataset layout.

    If ``samples`` raises, what was written is removed again.

    Args:
        folder: Made if it is not there. It may hold other folders, such as one with training shards, and be a zero-shot
            set with the same classes and templates, which gains the split.
        samples: Read once, in order.
        classnames: Each a line of text; the index is the label.
        templates: Captions with ``{c}`` instead of the class name.
        split: The folder of the shards.
        shard_size: Samples per shard, skipped ones counted.

    Returns:
        The number of shards.

    Raises:
        UserMistake: If the folder holds the split, other classes or templates, or other files; or the class names, the
            templates, the split or ``shard_size`` cannot be used.
        ValueError: If a label is not an index into the class names.
    """
    check_classnames(classnames)
    check_written_templates(templates)
    if split in ("", ".", "..") or "/" in split or "\\" in split:
        raise UserMistake(f"the split is {split!r}: it names a folder inside the set, such as test")
    texts = {
        folder / "classnames.txt": "".join(f"{name}\n" for name in classnames),
        folder / "zeroshot_classification_templates.txt": "".join(f"{template}\n" for template in templates),
    }
    _check_set(folder, texts)
    _make_empty_folder(folder / split, shard_size)
    shards = 0
    with _removed_on_failure() as written:
        for shard, rows in enumerate(_shards(samples, shard_size)):
            path = folder / split / f"{shard}.tar"
            with open_shard(path) as tar:
                for index, sample in enumerate(rows, start=shard * shard_size):
                    if isinstance(sample, Labelled):
                        tar.write(_readable(_zero_shot_sample(f"s{index:07d}", sample, len(classnames))))
            written.append(path)
            shards = shard + 1
        # Last the number of shards, since readers start from it: a set without it is not complete.
        for path, text in {**texts, folder / split / "nshards.txt": str(shards)}.items():
            if path not in texts or not path.exists():
                write_text(path, text)
                written.append(path)
    return shards


def check_classnames(classnames: Sequence[str]) -> None:
    """Check whether class names can be written, one a line.

    Raises:
        UserMistake: If there is none, or one is empty or not a line of text. Two classes may have the same name.
    """
    if not classnames:
        raise UserMistake("there are no classes: a zero-shot set needs at least one")
    for index, name in enumerate(classnames):
        if name != " ".join(name.split()) or not name or any(category(character) in _NO_TEXT for character in name):
            raise UserMistake(f"class name {index} is {name!r}: it must be one line of printable text")


def check_written_templates(templates: Sequence[str]) -> None:
    """Check whether caption templates can be written, one a line, for any reader.

    Raises:
        UserMistake: If there is none, or one lacks ``{c}``, has other braces or is no line of text.
    """
    check_templates(templates, "the templates")
    for template in templates:
        # Other readers fill templates with str.format, which takes any other brace for a field.
        if set(template.replace("{c}", "")) & set("{}") or not template.isprintable():
            raise UserMistake(f"template {template!r:.200} has another brace than {{c}}, or is not one printable line")


def _training_sample(key: str, pair: Pair) -> dict[str, str | bytes]:
    """Members of a training sample by extension."""
    picture = pair.picture
    # As img2dataset names them.
    known = {
        "key": key,
        "caption": pair.caption,
        "status": "success",
        "width": picture.width,
        "height": picture.height,
    }
    return {
        "__key__": key,
        picture.extension: picture.data,
        "txt": pair.caption.encode(),
        "json": json.dumps((pair.meta or {}) | known).encode(),
    }


def _readable(sample: dict[str, str | bytes]) -> dict[str, str | bytes]:
    """A sample none of whose members is larger than what is read."""
    for suffix, data in sample.items():
        most = MAX_BYTES.get(suffix, MAX_BYTES["picture"])
        if len(data) > most:
            raise UserMistake(
                f"the {suffix} of sample {sample['__key__']!r} would have {len(data):,} bytes, and none above {most:,} "
                "is read"
            )
    return sample


def _zero_shot_sample(key: str, sample: Labelled, classes: int) -> dict[str, str | bytes]:
    """Members of a zero-shot sample by extension."""
    if not 0 <= sample.label < classes:
        raise ValueError(f"sample {key} has the label {sample.label}, but there are {classes} classes")
    return {"__key__": key, sample.picture.extension: sample.picture.data, "cls": str(sample.label).encode()}


def _shards(rows: Iterable[T], shard_size: int) -> Iterator[Iterator[T]]:
    """Cut rows into shards without holding more than one row."""
    iterator = iter(rows)
    for first in iterator:
        yield chain([first], islice(iterator, shard_size - 1))


def _check_set(folder: Path, texts: dict[Path, str]) -> None:
    """Check that a folder is new, holds folders only, or is a zero-shot set with these texts."""
    if not folder.is_dir() or all(entry.is_dir() for entry in folder.iterdir()):
        return
    for path, text in texts.items():
        if not path.is_file():
            raise UserMistake(
                f"{folder} holds files already but no {path.name}: give an output folder that is new, holds folders "
                "only, or is a zero-shot set"
            )
        if path.read_bytes() != text.encode():
            raise UserMistake(f"{path} differs from what would be written: give the same, or another output folder")


def _make_empty_folder(folder: Path, shard_size: int) -> None:
    """Make the folder of the shards, or see that it is empty."""
    if shard_size < 1:
        raise UserMistake(f"the shard size is {shard_size}: a shard holds at least one sample")
    if folder.exists() and not folder.is_dir():
        raise UserMistake(f"{folder} is a file: give an output folder")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserMistake(f"{folder} is not empty: give an output folder that is new or empty")


@contextmanager
def _removed_on_failure() -> Iterator[list[Path]]:
    """Yield a list for the files that the block writes; they are removed if it raises."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            path.unlink()
        raise
