"""Write pictures and captions to shards, with a progress bar, and with a limit on skipped samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ...contracts import UserMistake
from ...datamodules.classnames import read_classnames
from ...datamodules.picture_files import UNSUPPORTED
from ...datamodules.shards.writer import (
    Labelled,
    Pair,
    Skipped,
    check_classnames,
    check_written_templates,
    write_training_shards,
    write_zero_shot_set,
)
from ...datamodules.templates import CIFAR10_TEMPLATES
from ...files.lock import held_folder
from ...files.reading import read_lines
from .class_order import named_positions

T = TypeVar("T")


class Output(NamedTuple):
    """Where and how classified pictures are written; as the options of the commands."""

    folder: Path
    zero_shot: bool
    zero_shot_split: str
    templates: list[str]
    shard_size: int
    seed: int
    max_bad_share: float


def caption_templates(path: Path | None) -> list[str]:
    """The captions that a file has for any class name, one a line; CLIP's for CIFAR-10 where there is no file."""
    templates = list(CIFAR10_TEMPLATES) if path is None else read_lines(path, "templates")
    check_written_templates(templates)
    return templates


def names_and_labels(path: Path | None, own: list[str], source: str, what: str) -> tuple[list[str], list[int]]:
    """Read the class names of a file, or take the source's own; and for each class of the source its index in them."""
    if path is None:
        names = [name.replace("_", " ").strip() for name in own]
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


def relabelled(samples: Iterable[Labelled | Skipped], labels: Sequence[int]) -> Iterator[Labelled | Skipped]:
    """Give samples the index of their class among the names; what has no such class is reported elsewhere."""
    for sample in samples:
        if isinstance(sample, Labelled) and 0 <= sample.label < len(labels):
            sample = sample._replace(label=labels[sample.label])
        yield sample


def write_classes(samples: Iterable[Labelled | Skipped], total: int, classnames: list[str], settings: Output) -> None:
    """Write classified pictures as training shards or as a zero-shot set."""
    check_share(settings.max_bad_share)

    def write(rows: Iterable[Labelled | Skipped]) -> int:
        if settings.zero_shot:
            split, size = settings.zero_shot_split, settings.shard_size
            return write_zero_shot_set(settings.folder, rows, classnames, settings.templates, split, size)
        pairs = _captioned(rows, classnames, settings.templates, settings.seed)
        return write_training_shards(settings.folder, pairs, settings.shard_size)

    write_counted(_within_classes(samples, classnames), total, settings.max_bad_share, write, settings.folder)


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
            name = classnames[sample.label]
            yield Pair(sample.picture, template.replace("{c}", name), {"label": sample.label, "label_name": name})
        else:
            yield sample


def check_share(max_bad_share: float) -> None:
    """Check that it is a share.

    Raises:
        UserMistake: If it is none.
    """
    if not 0 <= max_bad_share <= 1:
        raise UserMistake(f"max_bad_share is {max_bad_share}: it is a share between 0 and 1")


def write_counted(
    rows: Iterable[T],
    total: int,
    max_bad_share: float,
    write: Callable[[Iterable[T]], int],
    output: Path,
) -> None:
    """Write rows under a progress bar and say in one line what was written and skipped."""
    skipped: Counter[str] = Counter()
    # On the error stream, so that the line on the output stream stands alone.
    with held_folder(output, "output folder"), Progress(console=Console(stderr=True)) as progress:
        shown = progress.track(rows, total=total, description="writing shards")
        shards = write(_within_limit(shown, total, max_bad_share, skipped))
    bad = skipped.total()
    why = f"{_kinds(skipped)}{_to_convert(skipped)}"
    print(f"wrote {total - bad} pictures in {shards} shards to {output}; skipped {bad}{why}")


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
                    f"that is over --max_bad_share {max_bad_share:g}: {_advice(skipped)} or raise it"
                )
        yield row
    if skipped.total() == total:
        raise UserMistake(
            f"nothing to write: there are {total} samples and none can be used{_kinds(skipped)}{_to_convert(skipped)}"
        )


def _kinds(skipped: Counter[str]) -> str:
    return f" ({', '.join(f'{kind} {count}' for kind, count in skipped.items())})" if skipped else ""


def _unsupported(skipped: Counter[str]) -> int:
    """How many are pictures of a format that is not read: nothing is broken about them."""
    return sum(count for kind, count in skipped.items() if kind.startswith(UNSUPPORTED))


def _to_convert(skipped: Counter[str]) -> str:
    return f": convert the ones of an {UNSUPPORTED} to JPEG, PNG or WebP" if _unsupported(skipped) else ""


def _advice(skipped: Counter[str]) -> str:
    unsupported = _unsupported(skipped)
    if not unsupported:
        return "repair them"
    if unsupported == skipped.total():
        return "convert them to JPEG, PNG or WebP,"
    return f"repair them, convert those of an {UNSUPPORTED} to JPEG, PNG or WebP,"
