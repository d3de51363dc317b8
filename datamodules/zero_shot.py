"""A zero-shot classification set in CLIP-benchmark's webdataset layout."""

from __future__ import annotations

import logging
from pathlib import Path

from ..contracts import ClassPrompts, UserMistake
from ..files.reading import read_lines, user_path
from .bad_samples import BadSample, BadSampleReport
from .classnames import read_classnames
from .shards import ShardSet, expand_shards
from .shards.samples import decode_label
from .templates import check_templates

log = logging.getLogger(__name__)
_MAX_SHARDS = 1_000_000


class ZeroShotSet:
    """The folder ``classnames.txt``, ``zeroshot_classification_templates.txt``, ``test/N.tar``, ``test/nshards.txt``.

    Args:
        folder: Where these lie.

    Attributes:
        name: The folder's name, for results.
        class_prompts: The classes, by the lines of ``classnames.txt`` (see ``read_classnames``), and for each one
            caption per template (``{c}`` stands for the class).
        templates: The captions, ``{c}`` for the class.
        shards: The labelled pictures.

    Raises:
        UserMistake: If something is missing or empty, or a class has no name.
    """

    def __init__(self, folder: str) -> None:
        root = user_path(folder, "zero-shot folder")
        if not root.is_dir():
            raise UserMistake(f"zero-shot folder {folder} does not exist")
        self.name = root.resolve().name
        classnames = read_classnames(root / "classnames.txt")
        self.templates = templates = _lines(root / "zeroshot_classification_templates.txt")
        check_templates(templates, str(root / "zeroshot_classification_templates.txt"))
        self.class_prompts = ClassPrompts(
            classnames, [[template.replace("{c}", name) for template in templates] for name in classnames]
        )
        count = _lines(root / "test" / "nshards.txt")[0]
        if not (count.isascii() and count.isdecimal() and int(count[:8]) <= _MAX_SHARDS):
            raise UserMistake(
                f"{root / 'test' / 'nshards.txt'} holds {count!r:.40}, not a number up to {_MAX_SHARDS:,}"
            )
        self.shards = ShardSet(expand_shards(_shards(root / "test", int(count))), "cls")
        self.shards.check_not_empty()

    def bad_labels(self) -> list[BadSampleReport]:
        """The samples whose label is not the index of a class. Every label is read, and no picture."""
        classes, found = len(self.class_prompts.classnames), []
        for shard, count in enumerate(self.shards.counts.tolist()):
            for position in range(count):
                try:
                    decode_label(self.shards.read(shard, position, "cls"), classes)
                except BadSample as error:
                    key, name = self.shards.key(shard, position), self.shards.name(shard)
                    found.append(BadSampleReport(error.kind, error.detail, key, name))
        return found


def _shards(folder: Path, count: int) -> list[str]:
    """The shards that a number stands for; what it costs is bounded by those that there are."""
    there = {path.name for path in folder.iterdir()}
    missing = next((shard for shard in range(count) if f"{shard}.tar" not in there), None)
    if missing is not None:
        raise UserMistake(f"shard {folder / f'{missing}.tar'} does not exist, and nshards.txt says {count:,}")
    if f"{count}.tar" in there:
        log.warning("shard %s is there, but nshards.txt says %d: it is left out", folder / f"{count}.tar", count)
    return [str(folder / f"{shard}.tar") for shard in range(count)]


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise UserMistake(f"zero-shot set without {path}")
    lines = read_lines(path, "zero-shot set's")
    if not lines:
        raise UserMistake(f"{path} is empty")
    return lines
