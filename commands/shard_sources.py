"""What ``untrigger shards`` reads: rows of a CSV, picture files, datasets of torchvision. None of it is trusted."""

from __future__ import annotations

import csv
import difflib
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ..contracts import UserMistake
from ..datamodules.bad_samples import BadSample
from ..datamodules.shards.encoded import EncodedPicture, check_picture, encode_picture
from ..datamodules.shards.writer import Labelled, Pair, Skipped

MAX_FILE_BYTES = 100_000_000
"""A picture within the pixel limit is smaller."""

S = TypeVar("S")
T = TypeVar("T")


def csv_rows(table: Path, image_column: str, caption_column: str, delimiter: str) -> Iterator[tuple[str, str, str]]:
    """Read a CSV.

    Args:
        table: UTF-8, with a header.
        image_column: Column of the paths.
        caption_column: Column of the captions.
        delimiter: One character, or ``tab``.

    Yields:
        Where the row stands, its path and its caption, both empty where the row is too short.

    Raises:
        UserMistake: If it is not a CSV with these columns.
    """
    delimiter = "\t" if delimiter == "tab" else delimiter
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UserMistake(f"the delimiter is {delimiter!r}: it must be one character, or the word tab")
    if not table.is_file():
        raise UserMistake(f"{table} is not a file: give a CSV with the columns {image_column} and {caption_column}")
    # A caption that is not UTF-8 costs its row, not the table.
    with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            columns = reader.fieldnames or []
            for column in (image_column, caption_column):
                if column not in columns:
                    raise UserMistake(f"{table} has no column {column!r}: its columns are {list(columns)}")
            for row in reader:
                yield f"line {reader.line_num}", row[image_column] or "", row[caption_column] or ""
        except csv.Error as error:
            raise UserMistake(
                f"{table} is not CSV after line {reader.line_num} ({error}): look for a quote that is not closed"
            ) from None


def load_pair(folder: Path, row: tuple[str, str, str]) -> Pair | Skipped:
    """Load what a row of a CSV in ``folder`` names."""
    where, path, caption = row
    caption = caption.strip()
    if not caption:
        return Skipped("empty caption", where)
    try:
        caption.encode()
    except UnicodeEncodeError:
        return Skipped("caption is not UTF-8", where)
    picture = _load_picture(folder / path, where)
    return Pair(picture, caption) if isinstance(picture, EncodedPicture) else picture


def load_labelled(file: tuple[Path, int]) -> Labelled | Skipped:
    """Load a picture file and keep its label."""
    path, label = file
    picture = _load_picture(path, repr(str(path)))
    return Labelled(picture, label) if isinstance(picture, EncodedPicture) else picture


def _load_picture(path: Path, where: str) -> EncodedPicture | Skipped:
    try:
        # Neither a pipe nor a device, which would never end.
        if not path.is_file():
            return Skipped("missing picture", where)
        if path.stat().st_size > MAX_FILE_BYTES:
            return Skipped("picture too large", where)
        return check_picture(path.read_bytes())
    except BadSample as error:
        return Skipped(error.kind, where)
    except (OSError, ValueError):
        # No access, a name that is too long, or one with a NUL.
        return Skipped("missing picture", where)


def torchvision_dataset(name: str, root: Path, split: str, download: bool, dataset_args: dict[str, Any]) -> Any:
    """Make a dataset whose items are a picture, or the path of its file, and a target.

    Args:
        name: Class name in torchvision.datasets.
        root: Folder of its files.
        split: Split to read, where the dataset has splits.
        download: Fetch the files if they are not there.
        dataset_args: Further arguments, which win over the ones above.

    Raises:
        UserMistake: If there is no such dataset, split or argument, or its files are not there.
    """
    # Here, as the import takes seconds that no other command need wait for.
    from torchvision import datasets

    if name not in datasets.__all__:
        near = difflib.get_close_matches(name, datasets.__all__, cutoff=0.4)
        raise UserMistake(f"torchvision has no dataset {name!r}; near it: {', '.join(near) or 'none'}")
    make = getattr(datasets, name)
    parameters = inspect.signature(make).parameters
    if "train" in parameters and split not in ("train", "test"):
        raise UserMistake(f"torchvision's {name} has no split {split!r}: it has train and test")
    offered: dict[str, Any] = {"root": str(root), "download": download, "split": split, "train": split == "train"}
    arguments = {key: value for key, value in offered.items() if key in parameters} | dataset_args
    try:
        dataset = make(**arguments)
    except (RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
        advice = "--download true fetches it; " if "download" in parameters and not download else ""
        said = " ".join(str(error).split())
        raise UserMistake(f"torchvision's {name} cannot be read in {root}: {advice}torchvision says: {said}") from error
    if isinstance(dataset, datasets.DatasetFolder):
        # The path instead of the decoded picture, so that the file is copied as it is.
        dataset.loader = Path
    return dataset


def load_from_dataset(dataset: Any, name: str, index: int) -> Labelled | Skipped:
    """Load an item of a torchvision dataset.

    Raises:
        UserMistake: If the dataset does not hold pictures with a class each.
    """
    where = f"sample {index}"
    try:
        source, target = dataset[index]
    except (OSError, SyntaxError):
        return Skipped("broken picture", where)
    try:
        label = operator.index(target)
    except TypeError:
        raise UserMistake(f"torchvision's {name} has no class as its target: give a classification set") from None
    if isinstance(source, Path):
        return load_labelled((source, label))
    if not isinstance(source, Image.Image):
        raise UserMistake(f"torchvision's {name} holds {type(source).__name__} items: give a set of pictures")
    try:
        return Labelled(encode_picture(source), label)
    except BadSample as error:
        return Skipped(error.kind, where)


def text_lines(path: Path, what: str) -> list[str]:
    """Read the lines of a UTF-8 text file that are not blank.

    Args:
        path: The file.
        what: What it should hold, for the message.

    Raises:
        UserMistake: If it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserMistake(f"{path} cannot be read ({error}): give a UTF-8 file with {what}, one a line") from None
    return [line.strip() for line in lines if line.strip()]


def in_threads(load: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Apply a function in threads and yield the results in order, a few hundred items ahead at most."""
    iterator = iter(items)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(iterator, 256)):
            yield from pool.map(load, chunk)
