"""Callbacks: what is measured and kept."""

from __future__ import annotations

from .attack_success_rate import AttackSuccessRate
from .clean_accuracy import CleanAccuracy
from .evaluation_sample import EvaluationSample
from .gallery import TriggerGallery
from .progress import CompactProgressBar
from .results import ResultsWriter
from .similarities import SimilarityWriter
from .single_image_success import SingleImageSuccess
from .throughput import SamplesPerSecond

__all__ = [
    "AttackSuccessRate",
    "CleanAccuracy",
    "CompactProgressBar",
    "EvaluationSample",
    "ResultsWriter",
    "SamplesPerSecond",
    "SimilarityWriter",
    "SingleImageSuccess",
    "TriggerGallery",
]
