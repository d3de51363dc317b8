"""The parts of UBT: its phases, the evidence that they weigh, and what they find."""

from .evidence import (
    BlurFragility,
    Evidence,
    NegativeRobustness,
    OverfittedSimilarity,
    RandomSuspicion,
    SimilarityGain,
)

__all__ = [
    "BlurFragility",
    "Evidence",
    "NegativeRobustness",
    "OverfittedSimilarity",
    "RandomSuspicion",
    "SimilarityGain",
]
