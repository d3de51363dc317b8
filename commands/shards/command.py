"""``untrigger shards``: turns a CSV, an image folder or a torchvision dataset into shards, or counts shards."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...errors.importing import importing
from ...files.reading import shown, user_path
from ...files.writing import write_text
from ..declaration import Command, CommandGroup


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

    Keys count the rows in their order. Pictures are copied as they are; a line break in a caption becomes a space, as
    each line of a text would be read as a caption of its own.

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
    with importing():  # torch comes along
        from ...datamodules.shards.writer import write_training_shards
        from .sources import broken_lines, csv_rows, in_threads, load_pair
        from .writing import check_share, write_counted

    check_share(max_bad_share)
    read_rows = partial(csv_rows, table, image_column, caption_column, delimiter)
    total = joined = short = 0
    for row in read_rows():
        total += 1
        joined += not row.fault and broken_lines(row.caption)
        short += row.is_short
    if 0 < short < total:
        print(
            f"{shown(table)}: rows without any cell after the caption: {short:,} of {total:,}; in the others, what "
            "follows an unquoted delimiter in a caption is taken for the next column, and not for the caption"
        )
    if joined:
        print(f"{shown(table)}: captions of several lines, written as one line each: {joined:,}")
    rows = in_threads(partial(load_pair, table.parent), read_rows())
    write_counted(rows, total, max_bad_share, lambda pairs: write_training_shards(output, pairs, shard_size), output)


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
    alphabetical order otherwise. The order of the pictures is random. Hidden files and folders are left out; links are
    followed, but for those to a folder above or to another class. What was left out is reported.

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
    with importing():  # torch comes along
        import numpy as np

        from .class_order import number_order
        from .picture_folders import class_folders, class_pictures
        from .sources import in_threads, load_labelled
        from .writing import Output, caption_templates, names_and_labels, write_classes

    folder = user_path(folder, "folder")
    if not folder.is_dir():
        raise UserMistake(f"{folder} is not a folder: give one with a sub-folder for each class")
    folders = class_folders(folder)
    if not folders:
        raise UserMistake(f"{folder} has no sub-folders: pictures must lie in one for each class")
    settings = Output(output, zero_shot, zero_shot_split, caption_templates(templates), shard_size, seed, max_bad_share)
    folders = number_order(folders)
    names, labels = names_and_labels(classnames, folders, str(folder), "folder")
    found = class_pictures(folder, sorted(zip(labels, folders, strict=True)))
    files = found.files
    if found.report:
        print(f"{shown(folder)}: {found.report}")
    order = np.random.default_rng(seed).permutation(len(files))
    write_classes(in_threads(load_labelled, (files[index] for index in order)), len(files), names, settings)


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
    with importing():  # torch comes along
        import numpy as np

        from .sources import load_from_dataset, torchvision_dataset
        from .writing import Output, caption_templates, names_and_labels, relabelled, write_classes

    settings = Output(output, zero_shot, zero_shot_split, caption_templates(templates), shard_size, seed, max_bad_share)
    dataset = torchvision_dataset(name, root, split or ("test" if zero_shot else "train"), download, dataset_args or {})
    own_names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or []
    # ImageNet has a tuple of synonyms for each class.
    first_names = [own if isinstance(own, str) else own[0] for own in own_names]
    names, labels = names_and_labels(classnames, first_names, f"torchvision's {name}", "class")
    order = np.random.default_rng(seed).permutation(len(dataset))
    samples = (load_from_dataset(dataset, name, int(index)) for index in order)
    write_classes(relabelled(samples, labels), len(dataset), names, settings)


def write_sizes(shards: str, output: Path) -> None:
    """Count the pairs of shards, as webdataset's sizes.json, so that no run has to: see --data.counts.

    Every shard is read through once, as far as its headers go, and what is cut off or is not whole is reported.

    Example:
        untrigger shards sizes 'train/{00000..00019}.tar' train/sizes.json

    Args:
        shards: A folder, a path, a URL or a brace pattern.
        output: The file to write, new or of earlier counts.

    Raises:
        UserMistake: If a shard cannot be read, two have one file name, or the output is another file.
    """
    with importing():  # torch comes along
        from ...datamodules.shards import ShardSet, expand_shards
        from .sizes_file import check_sizes_file

    paths = expand_shards(shards)
    names = [Path(path.partition("?")[0]).name for path in paths]
    if len(set(names)) < len(names):
        raise UserMistake("two shards have the same file name: count the folders one by one")
    check_sizes_file(output, names)
    found = ShardSet(paths)
    sizes = dict(zip(names, found.counts.tolist(), strict=True))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(sizes, indent=1) + "\n")
    rest = ""
    if found.incomplete:
        rest = f"; {found.incomplete:,} more lack a picture or a caption, or end early ({found.found_members})"
    print(f"{len(found):,} pairs in {len(paths):,} shards, counted in {output}{rest}")


COMMAND = CommandGroup(
    "Turn pictures and captions into shards.\n\nExample:\n    untrigger shards csv pairs.csv shards",
    {
        "csv": Command(shards_from_csv, words={"table": None, "output": None}),
        "folder": Command(shards_from_folder, words={"folder": None, "output": None}),
        "torchvision": Command(shards_from_torchvision, words={"name": None, "output": None}),
        "sizes": Command(write_sizes, words={"shards": None, "output": None}),
    },
)
