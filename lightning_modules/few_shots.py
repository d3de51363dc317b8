"""A few labelled pictures of each class, drawn from a larger set."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..contracts import ImageTextData, UserMistake


def few_shots(data: ImageTextData, classnames: Sequence[str], shots: int, seed: int) -> list[str]:
    """Draw labelled pictures until each class has enough, or all have been looked at.

    No more pictures are read than need be, so a large set is not gone through for a few.

    Args:
        data: Labelled pictures: the caption of one is the name of its class.
        classnames: The classes, no two of one name.
        shots: Pictures of each class, at most.
        seed: Seed of the draw.

    Returns:
        Their keys. A class with fewer pictures has all of them.

    Raises:
        UserMistake: If a class has none, or two have one name.
    """
    if len(set(classnames)) < len(classnames):
        raise UserMistake("two classes have one name, so that labelled pictures cannot be counted; use shots: null")
    found: dict[str, list[str]] = {name: [] for name in classnames}
    drawn, seen = 2 * shots * len(classnames), frozenset[str]()
    while True:
        keys = data.some_keys(drawn, seed)
        new = [key for key in keys if key not in seen]
        Random(seed).shuffle(new)  # they come in the order of the shards
        for start in range(0, len(new), _BLOCK):
            some = new[start : start + _BLOCK]
            for key, name in zip(some, data.captions(some), strict=True):
                if len(found[name]) < shots:
                    found[name].append(key)
        if len(keys) < drawn or all(len(some) == shots for some in found.values()):
            break
        drawn, seen = 2 * drawn, frozenset(keys)
    empty = next((name for name, some in found.items() if not some), None)
    if empty is not None:
        raise UserMistake(f"data.train_shards has no labelled picture of class {empty!r:.80}; {shots} are wanted")
    return [key for some in found.values() for key in some]


_BLOCK = 500
"""Pictures that are decoded at once."""
