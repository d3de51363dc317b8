"""Estimate the minutes that the demo still takes."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

SHARES = {"data": 0.02, "poisoned_clip": 0.36, "cleanclip": 0.19, "ubt": 0.43}
"""Of the demo's time, what each part took on two cores."""


def minutes_left(seconds: float, done: Collection[str]) -> int:
    """Estimate the minutes that are left, at least 1.

    Args:
        seconds: What the parts that are done have taken together.
        done: Which, of ``SHARES``; at least one.
    """
    share = sum(SHARES[part] for part in done)
    return max(1, ceil(seconds * (1 - share) / share / 60))
