"""Plain objects of all ranks."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

Part = TypeVar("Part")


def all_ranks(part: Part) -> list[Part]:
    """What every rank gives, in the order of the ranks; the part alone in a single process."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return [part]
    parts: list[Part] = [part] * distributed.get_world_size()
    distributed.all_gather_object(parts, part)
    return parts
