"""Callbacks: how a run continues: its end, its checkpoints, what is resumed, its progress."""

from __future__ import annotations

from .end_together import EndTogether
from .finite_loss import FiniteLoss
from .last_checkpoint import LastCheckpoint
from .progress import CompactProgressBar
from .random_states import RandomStates
from .resumed_schedule import ResumedSchedule
from .resumed_settings import ResumedSettings

__all__ = [
    "CompactProgressBar",
    "EndTogether",
    "FiniteLoss",
    "LastCheckpoint",
    "RandomStates",
    "ResumedSchedule",
    "ResumedSettings",
]
