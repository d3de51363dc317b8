"""Check the ranges of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..contracts import UserMistake

_NONE: Mapping[str, float] = MappingProxyType({})


def check_ranges(counts: Mapping[str, int], amounts: Mapping[str, float], shares: Mapping[str, float] = _NONE) -> None:
    """Check parameters by name: counts of at least 1, amounts of at least 0, shares in (0, 1].

    Raises:
        UserMistake: If one is out of its range.
    """
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise UserMistake(f"model.{name} is {share}, not above 0 and at most 1")
    for name, count in counts.items():
        if count < 1:
            raise UserMistake(f"model.{name} is {count}, not at least 1")
    for name, amount in amounts.items():
        if not amount >= 0:
            raise UserMistake(f"model.{name} is {amount}, not at least 0")


def check_reference(neighbours: int, reference_size: int) -> None:
    """Check how many neighbours are looked for among how many pairs.

    Raises:
        UserMistake: If it is no neighbour, or the pairs are not more than the neighbours.
    """
    if not 1 <= neighbours < reference_size:
        raise UserMistake(
            f"neighbours is {neighbours} and reference_size {reference_size}: it takes at least 1 "
            "neighbour and more pairs than neighbours"
        )


def check_group(
    options: object, group: str, counts: Sequence[str], amounts: Sequence[str] = (), shares: Sequence[str] = ()
) -> None:
    """Check a group of options as `check_ranges` does.

    Args:
        options: The group, with an attribute for each name.
        group: The name of the argument that takes it, for messages.
        counts: Names of its counts.
        amounts: Names of its amounts.
        shares: Names of its shares.

    Raises:
        UserMistake: If one is out of its range.
    """
    check_ranges(
        *({f"{group}.{name}": getattr(options, name) for name in names} for names in (counts, amounts, shares))
    )
