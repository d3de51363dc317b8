"""Callbacks: what is measured of a model: clean accuracy, attack success, retrieval, detection, speed."""

from __future__ import annotations

from .attack_success_rate import AttackSuccessRate
from .clean_accuracy import CleanAccuracy
from .detection import BackdoorDetection
from .rate import Rate
from .retrieval import Retrieval
from .single_image_success import SingleImageSuccess
from .throughput import SamplesPerSecond
from .zero_shot_measure import ZeroShotMeasure, predictions

__all__ = [
    "AttackSuccessRate",
    "BackdoorDetection",
    "CleanAccuracy",
    "Rate",
    "Retrieval",
    "SamplesPerSecond",
    "SingleImageSuccess",
    "ZeroShotMeasure",
    "predictions",
]
