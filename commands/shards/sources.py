"""Read the sources of ``untrigger shards``: CSV rows, picture files, torchvision datasets. None of it is trusted."""

from __future__ import annotations

import difflib
import inspect
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from ...contracts import UserMistake
from ...datamodules.bad_samples import BadSample
from ...datamodules.shards.encoded import EncodedPicture, check_picture, encode_picture
from ...datamodules.shards.member_names import MAX_BYTES
from ...datamodules.shards.writer import Labelled, Pair, Skipped
from ...files.reading import shown
from ...files.tables import Row, open_table
from .picture_folders import PICTURE_SUFFIXES

_WHITE = re.compile(r"\s+")
_LINE_BREAK = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
"""What any reader of text takes for the end of a line."""

S = TypeVar("S")
T = TypeVar("T")


class Line(NamedTuple):
    """A row of a table of pictures and captions."""

    where: str
    path: str
    caption: str
    fault: str = ""
    """Why it cannot be used; empty unless the table itself says so."""
    is_short: bool = False
    """Whether it has no cell in any column after the caption's, where the table has some."""


def csv_rows(table: Path, image_column: str, caption_column: str, delimiter: str) -> Iterator[Line]:
    """Read a CSV.

    Args:
        table: UTF-8, with a header.
        image_column: Column of the paths.
        caption_column: Column of the captions.
        delimiter: One character, or ``tab``.

    Yields:
        Its rows; what is missing of one that is too short is empty.

    Raises:
        UserMistake: If it is not a CSV with these columns, or rows stand between two quotes, as one row.
    """
    delimiter = "\t" if delimiter == "tab" else delimiter
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UserMistake(f"the delimiter is {delimiter!r}: it must be one character, or the word tab")
    with open_table(table, "table", delimiter) as rows:
        rows.require(image_column, caption_column)
        column, last = rows.columns.index(image_column), rows.columns.index(caption_column) + 1
        for row in rows:
            if row.lines > 1 and _swallowed(row, column, delimiter, table.parent):
                first = row.line - row.lines + 1
                raise UserMistake(
                    f"table {shown(table)}: a quote that is opened in line {first} is closed in line {row.line} only, "
                    "with other rows in between; double the quotes inside cells, and close them"
                )
            where = f"{shown(table)}, line {row.line}"
            is_short = row.width <= last < len(rows.columns)
            yield Line(where, row.cells[image_column], row.cells[caption_column], row.fault, is_short)


def _swallowed(row: Row, column: int, delimiter: str, folder: Path) -> bool:
    """Whether a cell of several lines has whole rows in it: lines that name a picture where rows do.

    What is named is a picture by its suffix, or because there is such a file: names need no suffix. The first line of
    a cell is the rest of a row, from the cell's own column on.
    """
    named = []
    for own, cell in enumerate(row.cells.values()):
        for number, line in enumerate(cell.splitlines() if "\n" in cell or "\r" in cell else ()):
            parts, place = line.split(delimiter), column if number else column - own
            if len(parts) > max(place, 1 if number else 0) and (number or place > 0):
                named.append(parts[place].strip('" '))
    return any(Path(name).suffix.lower() in PICTURE_SUFFIXES or _is_file(folder / name) for name in named if name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def broken_lines(caption: str) -> bool:
    """Whether a caption has a line break within."""
    return _LINE_BREAK.search(caption.strip()) is not None


def load_pair(folder: Path, row: Line) -> Pair | Skipped:
    """Load what a row of a CSV in ``folder`` names. A line break in its caption becomes a space, as in HTML.

    A text of several lines is read as several captions.
    """
    where, path, caption, fault, _ = row
    caption = _WHITE.sub(lambda found: " " if _LINE_BREAK.search(found[0]) else found[0], caption.strip())
    if fault:
        return Skipped(fault, where)
    if not caption:
        return Skipped("empty caption", where)
    try:
        size = len(caption.encode())
    except UnicodeEncodeError:
        return Skipped("caption is not UTF-8", where)
    if size > MAX_BYTES["txt"]:
        return Skipped("caption too large", where)
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
        if path.stat().st_size > MAX_BYTES["picture"]:
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


def in_threads(load: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Apply a function in threads and yield the results in order, a few hundred items ahead at most."""
    iterator = iter(items)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(iterator, 256)):
            yield from pool.map(load, chunk)
