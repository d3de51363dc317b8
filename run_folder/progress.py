"""How far a run had come when it wrote a checkpoint, by what the checkpoint says. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def samples_seen(content: Any) -> str | None:
    """The training pairs that a checkpoint has seen, as ``results.csv`` has them.

    Args:
        content: What the checkpoint holds.

    Returns:
        A cell of ``samples_seen``; None where the checkpoint does not say, as one with weights alone.
    """
    samples = _part(_part(content, "callbacks"), "ResultsWriter").get("samples_seen")
    return str(samples) if isinstance(samples, int) else None


def is_under_way(content: Any) -> bool:
    """Whether a checkpoint is of a run in phases that was not over; one of any other run does not say.

    Args:
        content: What the checkpoint holds.
    """
    return _part(_part(content, "phased"), "progress").get("done") is False


def _part(content: Any, name: str) -> Mapping[str, Any]:
    part = content.get(name) if isinstance(content, Mapping) else None
    return part if isinstance(part, Mapping) else {}
