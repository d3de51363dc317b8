"""UBT: the module, the evidence that it weighs, a file for each phase, and what the phases find."""

from .evidence import (
    BlurFragility,
    ColourMargin,
    DetailMargin,
    Evidence,
    FlipFragility,
    NegativeRobustness,
    OutlineMargin,
    OverfittedSimilarity,
    Pairs,
    RandomSuspicion,
    SimilarityGain,
)
from .module import UBT
from .options import OverfitOptions, ProbeOptions, RepairOptions

__all__ = [
    "UBT",
    "BlurFragility",
    "ColourMargin",
    "DetailMargin",
    "Evidence",
    "FlipFragility",
    "NegativeRobustness",
    "OutlineMargin",
    "OverfitOptions",
    "OverfittedSimilarity",
    "Pairs",
    "ProbeOptions",
    "RandomSuspicion",
    "RepairOptions",
    "SimilarityGain",
]
