"""Callbacks: what is measured, what is written, and how a run ends and resumes."""

from __future__ import annotations

from .artefacts import (
    EvaluationSample,
    ResultsWriter,
    SimilarityWriter,
    SuspectsWriter,
    TriggerGallery,
)
from .measures import (
    AttackSuccessRate,
    BackdoorDetection,
    CleanAccuracy,
    Rate,
    Retrieval,
    SamplesPerSecond,
    SingleImageSuccess,
    ZeroShotMeasure,
    predictions,
)
from .running import (
    CompactProgressBar,
    EndTogether,
    FiniteLoss,
    LastCheckpoint,
    RandomStates,
    ResumedSchedule,
    ResumedSettings,
)

__all__ = [
    "AttackSuccessRate",
    "BackdoorDetection",
    "CleanAccuracy",
    "CompactProgressBar",
    "EndTogether",
    "EvaluationSample",
    "FiniteLoss",
    "LastCheckpoint",
    "RandomStates",
    "Rate",
    "ResultsWriter",
    "ResumedSchedule",
    "ResumedSettings",
    "Retrieval",
    "SamplesPerSecond",
    "SimilarityWriter",
    "SingleImageSuccess",
    "SuspectsWriter",
    "TriggerGallery",
    "ZeroShotMeasure",
    "predictions",
]
