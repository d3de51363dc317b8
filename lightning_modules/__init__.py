"""Lightning modules: poisoned CLIP and its defences, with the encoders and losses that they share."""

from .abl import ABL
from .badclip import BadCLIP
from .base import BaseCLIPModule
from .cleanclip import CleanCLIP
from .decree import DECREE
from .density import LocalDensityCLIP
from .fine_pruning import FinePruning
from .invertune import InversionOptions, InverTune, PatchOptions, TargetNaming, TuningOptions
from .linear_probe import LinearProbe
from .pair_detectors import PairDetector, PairDetectors, RankedPairs
from .par import PAR
from .phased import PassScores, Phase, PhasedCLIPModule, phase_table
from .poisoned_clip import PoisonedCLIP
from .roclip import RoCLIP
from .rvpt import RVPT
from .safeclip import SafeCLIP
from .supervised_finetune import SupervisedFinetune
from .tbar import TBAR
from .ubt import (
    UBT,
    BlurFragility,
    ColourMargin,
    DetailMargin,
    Evidence,
    FlipFragility,
    NegativeRobustness,
    OutlineMargin,
    OverfitOptions,
    OverfittedSimilarity,
    Pairs,
    ProbeOptions,
    RandomSuspicion,
    RepairOptions,
    SimilarityGain,
)

__all__ = [
    "ABL",
    "DECREE",
    "PAR",
    "RVPT",
    "TBAR",
    "UBT",
    "BadCLIP",
    "BaseCLIPModule",
    "BlurFragility",
    "CleanCLIP",
    "ColourMargin",
    "DetailMargin",
    "Evidence",
    "FinePruning",
    "FlipFragility",
    "InverTune",
    "InversionOptions",
    "LinearProbe",
    "LocalDensityCLIP",
    "NegativeRobustness",
    "OutlineMargin",
    "OverfitOptions",
    "OverfittedSimilarity",
    "PairDetector",
    "PairDetectors",
    "Pairs",
    "PassScores",
    "PatchOptions",
    "Phase",
    "PhasedCLIPModule",
    "PoisonedCLIP",
    "ProbeOptions",
    "RandomSuspicion",
    "RankedPairs",
    "RepairOptions",
    "RoCLIP",
    "SafeCLIP",
    "SimilarityGain",
    "SupervisedFinetune",
    "TargetNaming",
    "TuningOptions",
    "phase_table",
]
