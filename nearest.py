"""Suggest the nearest known name for an unknown one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a complaint: the nearest known name, as a question; nothing where none is near.

    Of a dotted name, the last part is compared among those that have the parts before in common, and the whole name
    only where none of them is near.

    Args:
        name: What was given.
        known: What there is.
    """
    names = list(known)
    head, dot, leaf = name.rpartition(".")
    beside = {other.removeprefix(head + dot): other for other in names if other.startswith(head + dot)}
    lowered = {other.lower(): other for other in reversed(beside)}
    near = get_close_matches(leaf.lower(), lowered, 1, 0.6)
    if near:
        return f"; did you mean {beside[lowered[near[0]]]}?"
    whole = get_close_matches(name, names, 1, 0.8)
    return f"; did you mean {whole[0]}?" if whole else ""
