"""Match the lines of a file of class names to the classes of a source."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ...contracts import UserMistake
from ...printable import printable

_NUMBERED = re.compile(r"(\D*)(\d+)(.*)", re.DOTALL)
_SHOWN = 3


def number_order(names: Sequence[str]) -> list[str]:
    """Names in alphabetical order, or where they are numbered in the order of the numbers: ``2`` before ``10``.

    Numbered are those that begin alike, up to a number that is another one in each.
    """
    found = [_NUMBERED.fullmatch(name) for name in names]
    numbers = {(match[1], int(match[2])) for match in found if match}
    if len(numbers) == len(names) and len({stem for stem, _ in numbers}) == 1:
        return sorted(names, key=lambda name: int(_NUMBERED.fullmatch(name)[2]))  # type: ignore[index]  # each matches
    return sorted(names)


def named_positions(own: Sequence[str], given: Sequence[str], file: Path, what: str) -> list[int]:
    """Find the line of a file of class names that is meant for each class of a source.

    Classes whose own names stand in the file are found by these. Others are taken in their order, numbered ones in that
    of their numbers, and it is said which gets which name.

    Args:
        own: N different names that the source has for its classes, in its order.
        given: N names, in the order of the file.
        file: The file.
        what: What the source's names are names of, for messages: ``folder``.

    Returns:
        For each class of the source, its index in ``given``.

    Raises:
        UserMistake: If some own names stand in the file, but on lines of other classes.
    """
    ordered = number_order(own) if list(own) == sorted(own) else list(own)
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


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()
