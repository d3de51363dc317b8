"""Callbacks: what is measured and kept."""

from __future__ import annotations

from .attack_success_rate import AttackSuccessRate
from .clean_accuracy import CleanAccuracy
from .detection import BackdoorDetection
from .end_together import EndTogether
from .evaluation_sample import EvaluationSample
from .finite_loss import FiniteLoss
from .gallery import TriggerGallery
from .last_checkpoint import LastCheckpoint
from .progress import CompactProgressBar
from .random_states import RandomStates
from .rate import Rate
from .results import ResultsWriter
from .resumed_schedule import ResumedSchedule
from .resumed_settings import ResumedSettings
from .retrieval import Retrieval
from .similarities import SimilarityWriter
from .single_image_success import SingleImageSuccess
from .suspects import SuspectsWriter
from .throughput import SamplesPerSecond
from .zero_shot_measure import ZeroShotMeasure, predictions

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
