"""``untrigger shards``: turns a CSV, an image folder or a torchvision dataset into shards, or counts shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ..contracts import UserMistake
from ..datamodules.classnames import read_classnames
from ..datamodules.shards.writer import (
    Labelled,
    Pair,
    Skipped,
    check_classnames,
    check_written_templates,
    write_training_shards,
    write_zero_shot_set,
)
from ..datamodules.templates import CIFAR10_TEMPLATES
from ..reading import read_lines, shown, user_path
from .class_order import named_positions, number_order
from .picture_folders import class_pictures
from .shard_sizes import write_sizes
from .shard_sources import (
    csv_rows,
    in_threads,
    load_from_dataset,
    load_labelled,
    load_pair,
    torchvision_dataset,
)

T = TypeVar("T")


class _Output(NamedTuple):
    """Where and how classified pictures are written; as the options of the commands."""

    folder: Path
    zero_shot: bool
    zero_shot_split: str
    templates: list[str]
    shard_size: int
    seed: int
    max_bad_share: float


def shards_from_csv(
    table: Path,
    output: Path,
    image_column: str = "image",
    caption_column: str = "caption",
    delimiter: str = ",",
    shard_size: int = 10_000,
    max_bad_share: float = 0.01,
) -> None:
    """Turn a CSV of paths and captions (CleanCLIP's format) into training shards.

    Keys count the rows in their order. Pictures are copied as they are.

    Example:
        untrigger shards csv cc3m/train.csv data/cc3m --shard_size 5000

    Args:
        table: The CSV, UTF-8, with a header.
        output: Folder of the shards, new or empty.
        image_column: Column of the paths; relative ones start in the CSV's folder.
        caption_column: Column of the captions.
        delimiter: The character between two cells; ``tab`` for a tab.
        shard_size: Rows per shard.
        max_bad_share: Share of rows, in [0, 1], that may be skipped for a bad picture or caption.

    Raises:
        UserMistake: If the CSV, its columns or the output folder cannot be used, or too many rows are bad.
    """
    _check_share(max_bad_share)
    read_rows = partial(csv_rows, table, image_column, caption_column, delimiter)
    total = sum(1 for _ in read_rows())
    rows = in_threads(partial(load_pair, table.parent), read_rows())
    _write(rows, total, max_bad_share, lambda pairs: write_training_shards(output, pairs, shard_size), output)


def shards_from_folder(
    folder: Path,
    output: Path,
    zero_shot: bool = False,
    zero_shot_split: str = "test",
    classnames: Path | None = None,
    templates: Path | None = None,
    shard_size: int = 10_000,
    seed: int = 0,
    max_bad_share: float = 0.01,
) -> None:
    """Turn a folder of pictures, one sub-folder a class, into training shards or into a zero-shot set.

    Classes are the sub-folders, underscores read as spaces: in the order of their numbers where they are numbered, in
    alphabetical order otherwise. The order of the pictures is random. Hidden files and folders are left out, links are
    followed; what was left out is told.

    Example:
        untrigger shards folder pets/train data/pets/train --templates templates.txt

    Args:
        folder: Folder of the classes; what lies outside its sub-folders is left out.
        output: Folder of the shards or the set, new or empty; a zero-shot set may gain another split.
        zero_shot: Write a zero-shot set; otherwise training shards with a random template as each caption.
        zero_shot_split: Folder of the shards inside the zero-shot set.
        classnames: File with the name of each class, one a line, in the order of the sub-folders; in any order where
            these are the names of the sub-folders themselves.
        templates: File with captions, one a line, with ``{c}`` for the class name.
        shard_size: Pictures per shard.
        seed: Seed of the order and of the captions.
        max_bad_share: Share of the pictures, in [0, 1], that may be skipped as broken.

    Raises:
        UserMistake: If the folder, a file or the output folder cannot be used, or too many pictures are bad.
    """
    folder = user_path(folder, "folder")
    if not folder.is_dir():
        raise UserMistake(f"{folder} is not a folder: give one with a sub-folder for each class")
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not folders:
        raise UserMistake(f"{folder} has no sub-folders: pictures must lie in one for each class")
    settings = _Output(output, zero_shot, zero_shot_split, _templates(templates), shard_size, seed, max_bad_share)
    folders = number_order(folders)
    names, labels = _classnames(classnames, folders, str(folder), "folder")
    found = class_pictures(folder, sorted(zip(labels, folders, strict=True)))
    files = found.files
    if found.told:
        print(f"{shown(folder)}: {found.told}")
    order = np.random.default_rng(seed).permutation(len(files))
    _write_classes(in_threads(load_labelled, (files[index] for index in order)), len(files), names, settings)


def shards_from_torchvision(
    name: str,
    output: Path,
    root: Path = Path("data"),
    split: str | None = None,
    download: bool = False,
    dataset_args: dict[str, Any] | None = None,
    zero_shot: bool = False,
    zero_shot_split: str = "test",
    classnames: Path | None = None,
    templates: Path | None = None,
    shard_size: int = 10_000,
    seed: int = 0,
    max_bad_share: float = 0.01,
) -> None:
    """Turn a classification dataset of torchvision into training shards or into a zero-shot set.

    The order of the pictures is random. Files of ImageNet and its kin are copied as they are, other pictures are
    written as PNG.

    Example:
        untrigger shards torchvision CIFAR10 data/cifar10 --zero_shot true --download true

    Args:
        name: Class name in torchvision.datasets.
        output: Folder of the shards or the set, new or empty; a zero-shot set may gain another split.
        root: Folder of the dataset's own files.
        split: Split of the dataset to read; train, or with ``zero_shot`` test, unless given.
        download: Fetch the dataset's files if they are not there.
        dataset_args: Further arguments of the dataset, which win over the ones above.
        zero_shot: Write a zero-shot set; otherwise training shards with a random template as each caption.
        zero_shot_split: Folder of the shards inside the zero-shot set.
        classnames: File with the name of each class, one a line; the dataset's own, underscores read as spaces,
            unless given.
        templates: File with captions, one a line, with ``{c}`` for the class name.
        shard_size: Pictures per shard.
        seed: Seed of the order and of the captions.
        max_bad_share: Share of the pictures, in [0, 1], that may be skipped as broken.

    Raises:
        UserMistake: If the dataset, a file or the output folder cannot be used, or too many pictures are bad.
    """
    settings = _Output(output, zero_shot, zero_shot_split, _templates(templates), shard_size, seed, max_bad_share)
    dataset = torchvision_dataset(name, root, split or ("test" if zero_shot else "train"), download, dataset_args or {})
    own_names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or []
    # ImageNet has a tuple of synonyms for each class.
    first_names = [own if isinstance(own, str) else own[0] for own in own_names]
    names, labels = _classnames(classnames, first_names, f"torchvision's {name}", "class")
    order = np.random.default_rng(seed).permutation(len(dataset))
    samples = (load_from_dataset(dataset, name, int(index)) for index in order)
    _write_classes(_relabelled(samples, labels), len(dataset), names, settings)


COMMANDS: dict[str, Any] = {
    "csv": shards_from_csv,
    "folder": shards_from_folder,
    "torchvision": shards_from_torchvision,
    "sizes": write_sizes,
}


def _templates(path: Path | None) -> list[str]:
    templates = list(CIFAR10_TEMPLATES) if path is None else read_lines(path, "templates")
    check_written_templates(templates)
    return templates


def _classnames(path: Path | None, own: list[str], source: str, what: str) -> tuple[list[str], list[int]]:
    """Read the class names of a file, or take the source's own; and for each class of the source its place in them."""
    if path is None:
        names = [name.replace("_", " ") for name in own]
    else:  # inside a name, a space for any white space: other readers take some of it for the end of a line
        names = [" ".join(name.split()) for name in read_classnames(path)]
    if not names:
        raise UserMistake(f"{source} has no class names: give them with --classnames FILE, one a line")
    if own and len(names) != len(own):
        raise UserMistake(
            f"{path} has {len(names)} class names, but {source} has {len(own)} classes: give one for each"
        )
    check_classnames(names)
    if path is None or not own or len(set(own)) < len(own):
        return names, list(range(len(names)))
    return names, named_positions(own, names, path, what)


def _relabelled(samples: Iterable[Labelled | Skipped], labels: Sequence[int]) -> Iterator[Labelled | Skipped]:
    """Give samples the place of their class among the names; what has no such class is told of elsewhere."""
    for sample in samples:
        if isinstance(sample, Labelled) and 0 <= sample.label < len(labels):
            sample = sample._replace(label=labels[sample.label])
        yield sample


def _write_classes(samples: Iterable[Labelled | Skipped], total: int, classnames: list[str], settings: _Output) -> None:
    """Write classified pictures as training shards or as a zero-shot set."""
    _check_share(settings.max_bad_share)

    def write(rows: Iterable[Labelled | Skipped]) -> int:
        if settings.zero_shot:
            split, size = settings.zero_shot_split, settings.shard_size
            return write_zero_shot_set(settings.folder, rows, classnames, settings.templates, split, size)
        pairs = _captioned(rows, classnames, settings.templates, settings.seed)
        return write_training_shards(settings.folder, pairs, settings.shard_size)

    _write(_within_classes(samples, classnames), total, settings.max_bad_share, write, settings.folder)


def _within_classes(samples: Iterable[Labelled | Skipped], classnames: list[str]) -> Iterator[Labelled | Skipped]:
    for sample in samples:
        if isinstance(sample, Labelled) and not 0 <= sample.label < len(classnames):
            raise UserMistake(f"a picture has class {sample.label}, but there are {len(classnames)} class names")
        yield sample


def _captioned(
    samples: Iterable[Labelled | Skipped], classnames: list[str], templates: list[str], seed: int
) -> Iterator[Pair | Skipped]:
    """Give each sample a random template, filled with its class name, as its caption."""
    # A stream of its own, apart from the one of the order.
    draws = np.random.default_rng([seed, 1])
    for sample in samples:
        template = templates[draws.integers(len(templates))]
        if isinstance(sample, Labelled):
            caption = template.replace("{c}", classnames[sample.label])
            yield Pair(sample.picture, caption, {"label": sample.label})
        else:
            yield sample


def _check_share(max_bad_share: float) -> None:
    if not 0 <= max_bad_share <= 1:
        raise UserMistake(f"max_bad_share is {max_bad_share}: it is a share between 0 and 1")


def _write(
    rows: Iterable[T],
    total: int,
    max_bad_share: float,
    write: Callable[[Iterable[T]], int],
    output: Path,
) -> None:
    """Write rows under a progress bar and say in one line what was written and skipped."""
    skipped: Counter[str] = Counter()
    # On the error stream, so that the line on the output stream stands alone.
    with Progress(console=Console(stderr=True)) as progress:
        shown = progress.track(rows, total=total, description="writing shards")
        shards = write(_within_limit(shown, total, max_bad_share, skipped))
    bad = skipped.total()
    print(f"wrote {total - bad} pictures in {shards} shards to {output}; skipped {bad}{_kinds(skipped)}")


def _within_limit(rows: Iterable[T], total: int, max_bad_share: float, skipped: Counter[str]) -> Iterator[T]:
    """Pass rows on, count the skipped ones by kind, and stop the run when they are too many."""
    first = ""
    for row in rows:
        if isinstance(row, Skipped):
            skipped[row.kind] += 1
            first = first or row.where
            if skipped.total() > max_bad_share * total:
                raise UserMistake(
                    f"{skipped.total()} of {total} samples cannot be used{_kinds(skipped)}, the first at {first}; "
                    f"that is over --max_bad_share {max_bad_share:g}: repair them or raise it"
                )
        yield row
    if skipped.total() == total:
        raise UserMistake(f"nothing to write: there are {total} samples and none can be used{_kinds(skipped)}")


def _kinds(skipped: Counter[str]) -> str:
    return f" ({', '.join(f'{kind} {count}' for kind, count in skipped.items())})" if skipped else ""
