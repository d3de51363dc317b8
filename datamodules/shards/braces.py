"""Expand brace patterns, as a shell does, once it is known how many names they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from braceexpand import braceexpand, char_range_re, int_range_re  # type: ignore[attr-defined]

_TOKENS = re.compile(r"\\.|[{},]", re.DOTALL)
_MAX_DIGITS = 18
"""Of a number in a range. ``int`` refuses thousands of them."""


class TooManyNames(ValueError):
    """A pattern stands for more names than it may."""


@dataclass
class _Brace:
    """A brace that is open, or the pattern itself."""

    start: int
    names: int = 1
    """Of the alternative that is being read."""
    before: int = 0
    """Of the alternatives before it."""
    is_list: bool = False


def expand_braces(pattern: str, most: int) -> list[str]:
    """The names that a pattern such as ``{00000..00019}.tar`` stands for.

    Args:
        pattern: It. A backslash takes the meaning from the character after it.
        most: Names that it may stand for.

    Raises:
        TooManyNames: If they are more; nothing is expanded then.
        UnbalancedBracesError: If a brace is not closed.
    """
    if names_of(pattern) > most:
        raise TooManyNames(f"more than {most:,} names")
    return list(braceexpand(pattern))


def names_of(pattern: str) -> int:
    """How many names a pattern stands for, without making them: ``braceexpand`` holds each range as a whole."""
    opened = [_Brace(0)]
    for token in _TOKENS.finditer(pattern):
        brace = opened[-1]
        if token[0] == "{":
            opened.append(_Brace(token.end()))
        elif len(opened) == 1:
            continue
        elif token[0] == ",":
            brace.names, brace.before, brace.is_list = 1, brace.before + brace.names, True
        elif token[0] == "}":
            opened.pop()
            inside = pattern[brace.start : token.start()]
            opened[-1].names *= brace.before + brace.names if brace.is_list or brace.names > 1 else _range(inside)
    total = 1
    for brace in opened:
        total *= brace.before + brace.names
    return total


def _range(inside: str) -> int:
    """The length of a range; 1 of what is none."""
    numbers: re.Match[str] | None = int_range_re.match(inside)
    if numbers is None:
        return len(list(braceexpand(f"{{{inside}}}"))) if char_range_re.match(inside) else 1
    first, last, step = numbers.groups(default="1")
    if max(map(len, (first, last, step))) > _MAX_DIGITS:
        return 10**18
    return abs(int(last) - int(first)) // (int(step) or 1) + 1
