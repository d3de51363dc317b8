"""Whether a folder holds a run already, and whose a checkpoint is."""

from __future__ import annotations

from pathlib import Path

from .config import CONFIG
from .curves import METRICS
from .results import RESULTS


def holds_run(folder: Path) -> bool:
    """Whether a folder has what a run has left: a config beside a checkpoint, a log or results.

    The config alone is of one that was refused before it began.
    """
    left = (folder / RESULTS, folder / METRICS, *folder.glob("*.ckpt"))
    return (folder / CONFIG).exists() and any(path.exists() for path in left)


def lies_in(checkpoint: str, folder: Path) -> bool:
    """Whether a checkpoint is that of a folder's own run."""
    return Path(checkpoint).resolve().is_relative_to(folder.resolve())
