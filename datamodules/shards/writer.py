"""Writes the two layouts of shards that the field uses, each file whole or not at all.

Training shards are written as img2dataset writes them, zero-shot sets as CLIP-benchmark's webdataset sets stand on the
hub. Equal input gives equal bytes: members carry no time and no owner.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from webdataset.writer import TarWriter

from ...contracts import UserMistake
from .encoded import EncodedPicture

T = TypeVar("T")


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
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when the block ends well; otherwise nothing of it is left.

    A process that is killed leaves at most a hidden ``.NAME.PID.tmp``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with open_whole(path) as stream:
        stream.write(text.encode())


def write_training_shards(folder: Path, pairs: Iterable[Pair | Skipped], shard_size: int) -> int:
    """Write ``00000.tar``, ``00001.tar``, ... with ``00000_stats.json``, ... beside them, as img2dataset does.

    A key is the number of the shard and the place in it, skipped samples counted, so it leads back to the source.
    If ``pairs`` raises, the shards that were written are removed again.

    Args:
        folder: Made if it is not there.
        pairs: Read once, in order.
        shard_size: Samples per shard, skipped ones counted.

    Returns:
        The number of shards.

    Raises:
        UserMistake: If the folder holds anything or ``shard_size`` is not positive.
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
                        tar.write(_training_sample(f"{shard:05d}{count - 1:0{digits}d}", pair))
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
        folder: Made if it is not there. It may hold other folders, such as one with training shards.
        samples: Read once, in order.
        classnames: Each once, a line of text.
        templates: Captions with ``{c}`` in the place of the class name.
        split: The folder of the shards.
        shard_size: Samples per shard, skipped ones counted.

    Returns:
        The number of shards.

    Raises:
        UserMistake: If the folder holds files or the split, or the class names, the templates, the split or
            ``shard_size`` cannot be used.
        ValueError: If a label is not an index into the class names.
    """
    check_classnames(classnames)
    check_templates(templates)
    if split in ("", ".", "..") or "/" in split or "\\" in split:
        raise UserMistake(f"the split is {split!r}: it names a folder inside the set, such as test")
    if folder.is_dir() and any(not entry.is_dir() for entry in folder.iterdir()):
        raise UserMistake(f"{folder} holds files already: give an output folder that is new or holds folders only")
    _make_empty_folder(folder / split, shard_size)
    shards = 0
    with _removed_on_failure() as written:
        for shard, rows in enumerate(_shards(samples, shard_size)):
            path = folder / split / f"{shard}.tar"
            with open_shard(path) as tar:
                for index, sample in enumerate(rows, start=shard * shard_size):
                    if isinstance(sample, Labelled):
                        tar.write(_zero_shot_sample(f"s{index:07d}", sample, len(classnames)))
            written.append(path)
            shards = shard + 1
        texts = {
            folder / "classnames.txt": "".join(f"{name}\n" for name in classnames),
            folder / "zeroshot_classification_templates.txt": "".join(f"{template}\n" for template in templates),
            # Last, since readers start from it: a set without it is not complete.
            folder / split / "nshards.txt": str(shards),
        }
        for path, text in texts.items():
            write_text(path, text)
            written.append(path)
    return shards


def check_classnames(classnames: Sequence[str]) -> None:
    """Say whether class names can be written, one a line.

    Raises:
        UserMistake: If there is none, or one is empty, not a line of text, or there twice.
    """
    if not classnames:
        raise UserMistake("there are no classes: a zero-shot set needs at least one")
    seen: set[str] = set()
    for place, name in enumerate(classnames):
        if name != " ".join(name.split()) or not name or not name.isprintable():
            raise UserMistake(f"class name {place} is {name!r}: it must be one line of printable text")
        if name in seen:
            raise UserMistake(f"the class name {name!r} is there twice: each class needs its own")
        seen.add(name)


def check_templates(templates: Sequence[str]) -> None:
    """Say whether caption templates can be filled.

    Raises:
        UserMistake: If there is none, or one lacks ``{c}`` or has other braces.
    """
    if not templates:
        raise UserMistake("there are no templates: give at least one, such as 'a photo of a {c}.'")
    for place, template in enumerate(templates):
        rest = template.replace("{c}", "")
        # Readers fill templates with str.format, which takes any other brace for a field.
        if rest == template or set(rest) & set("{}") or not template.isprintable():
            raise UserMistake(f"template {place} is {template!r}: it needs {{c}} for the class name and no other brace")


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
