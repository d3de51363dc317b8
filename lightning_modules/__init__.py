"""What is trained: poisoned CLIP, its defences, and the encoders and losses they share."""

from .badclip import BadCLIP
from .base import BaseCLIPModule
from .cleanclip import CleanCLIP
from .decree import DECREE
from .density import LocalDensityCLIP
from .phased import Phase, PhasedCLIPModule, phase_table
from .poisoned_clip import PoisonedCLIP
from .supervised_finetune import SupervisedFinetune
from .ubt import (
    UBT,
    BlurFragility,
    ColourMargin,
    DetailMargin,
    Evidence,
    FlipFragility,
    NegativeRobustness,
    OverfitOptions,
    OverfittedSimilarity,
    Pairs,
    ProbeOptions,
    RandomSuspicion,
    RepairOptions,
    SimilarityGain,
)

__all__ = [
    "DECREE",
    "UBT",
    "BadCLIP",
    "BaseCLIPModule",
    "BlurFragility",
    "CleanCLIP",
    "ColourMargin",
    "DetailMargin",
    "Evidence",
    "FlipFragility",
    "LocalDensityCLIP",
    "NegativeRobustness",
    "OverfitOptions",
    "OverfittedSimilarity",
    "Pairs",
    "Phase",
    "PhasedCLIPModule",
    "PoisonedCLIP",
    "ProbeOptions",
    "RandomSuspicion",
    "RepairOptions",
    "SimilarityGain",
    "SupervisedFinetune",
    "phase_table",
]
