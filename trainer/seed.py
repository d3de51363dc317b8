"""The seed of a run."""

from __future__ import annotations

import os


def run_seed(given: int | None = None) -> int:
    """A seed that is given, or else that of ``seed_everything``; 0 without either."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if given is None else given
