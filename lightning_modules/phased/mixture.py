"""Chosen pairs among others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def among_others(chosen: Sequence[str], others: Sequence[str], per_chosen: int, *seed: int) -> list[str]:
    """Chosen pairs, all of them, and some others drawn at random.

    Args:
        chosen: Their keys.
        others: Keys to draw from.
        per_chosen: How many others for a chosen one; fewer where there are fewer.
        seed: The same seed draws the same others.

    Returns:
        Keys, the chosen ones first.
    """
    count = min(per_chosen * len(chosen), len(others))
    drawn = np.random.default_rng(seed).choice(len(others), count, replace=False)
    return [*chosen, *(others[index] for index in drawn.tolist())]
