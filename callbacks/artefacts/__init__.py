"""Callbacks: what a run leaves in its folder: results, figures, tables of pairs."""

from __future__ import annotations

from .evaluation_sample import EvaluationSample
from .gallery import TriggerGallery
from .results import ResultsWriter
from .similarities import SimilarityWriter
from .suspects import SuspectsWriter

__all__ = [
    "EvaluationSample",
    "ResultsWriter",
    "SimilarityWriter",
    "SuspectsWriter",
    "TriggerGallery",
]
