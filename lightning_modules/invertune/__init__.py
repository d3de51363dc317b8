"""InverTune in the paper's order: the target is named, the trigger inverted, the neurons that it needs are tuned."""

from .module import InverTune
from .options import InversionOptions, PatchOptions, TuningOptions
from .target_naming import TargetNaming

__all__ = ["InverTune", "InversionOptions", "PatchOptions", "TargetNaming", "TuningOptions"]
