"""Match the lines of a file of class names to the classes of a source."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ...contracts import UserMistake
from ...files.printable import printable

_NUMBER = re.compile(r"(\d+)")
_FIRST = re.compile(r"([^\s,:;|=]+)[\s,:;|=]+\S")
"""The first word of a line that has more of them."""
_ID = re.compile(r"[a-z]?\d+")
"""A number, or one of WordNet's such as ``n01440764``."""
_SHOWN = 3


def number_order(names: Sequence[str]) -> list[str]:
    """Names in alphabetical order, but by their numbers where they have some: ``2`` before ``10``.

    Every number counts, not the first alone: ``v2_9`` stands before ``v2_10``.
    """
    return sorted(names, key=lambda name: (_parts(name), name))


def _parts(name: str) -> list[str | int]:
    """A name's texts, at even places, and the numbers between them, so that any two names can be compared."""
    return [int(part) if place % 2 else part for place, part in enumerate(_NUMBER.split(name))]


def _numbered(names: Sequence[str]) -> bool:
    """Whether the names that have a number begin alike, up to a number that is not the same in all."""
    parts = [_parts(name) for name in names if _NUMBER.search(name)]
    alike = 0
    while parts and all(alike < len(one) and one[alike] == parts[0][alike] for one in parts):
        alike += 1
    return len(parts) > 1 and alike % 2 == 1


def named_positions(own: Sequence[str], given: Sequence[str], file: Path, what: str) -> list[int]:
    """Find the line of a file of class names that is meant for each class of a source.

    Classes whose own names stand in the file are found by these. Others are taken in their order, and it is said which
    gets which name. An alphabetical order is taken for that of the numbers where the names are numbered alike; where
    they are not, as with types of aircraft, it is the order of the source and stays.

    Args:
        own: N different names that the source has for its classes, in its order.
        given: N names, in the order of the file.
        file: The file.
        what: What the source's names are names of, for messages: ``folder``.

    Returns:
        For each class of the source, its index in ``given``.

    Raises:
        UserMistake: If some own names stand in the file, but on lines of other classes, or with a name behind each.
    """
    _check_plain(own, given, file, what)
    ordered = number_order(own) if list(own) == sorted(own) and _numbered(own) else list(own)
    plain_own, plain_given = [[_plain(name) for name in names] for names in (ordered, given)]
    if len(set(plain_given)) == len(given) and set(plain_own) == set(plain_given):
        return [plain_given.index(_plain(name)) for name in own]
    for index, name in enumerate(plain_own):
        if name in plain_given and plain_given[index] != name:
            line = plain_given.index(name) + 1
            raise UserMistake(
                f"{file} says {printable(given[line - 1], 80)!r} as its name {line}, but the {what} of that name is "
                f"number {index + 1} of {len(own)}: put the names in the order of the {what}s, or name each as its own"
            )
    pairs = [f"{printable(one, 60)} is {printable(name, 60)!r}" for one, name in zip(ordered, given, strict=True)]
    if plain_own != plain_given:
        shown = pairs if len(pairs) <= 2 * _SHOWN else [*pairs[:_SHOWN], "...", pairs[-1]]
        print(f"class names by {what}: {', '.join(shown)}", file=sys.stderr)
    return [ordered.index(name) for name in own]


def _check_plain(own: Sequence[str], given: Sequence[str], file: Path, what: str) -> None:
    """Check that the lines of a file are names, and not pairs of a class's own name, such as ``n01440764``, and one."""
    firsts = [_FIRST.match(name) for name in given]
    ids = [first[1] for first in firsts if first is not None]
    if set(ids) != set(own) or len(ids) != len(own):
        return
    # As they are, "cat (animal)" and "dog (animal)" are names of their own of the folders cat and dog.
    if ids != list(own) or all(_ID.fullmatch(name) for name in own):
        raise UserMistake(
            f"{file} has the {what}'s name in each line, as in {printable(given[0], 60)!r}, which would be read as "
            f"part of the class's: give the class names alone, one a line, in the order {', '.join(own[:_SHOWN])}"
            f"{', ...' if len(own) > _SHOWN else ''}"
        )


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()
