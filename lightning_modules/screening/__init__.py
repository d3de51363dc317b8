"""Is a picture that a model is shown poisoned? Detectors at test time, and thresholds that keep what they promise."""

from .backdoor_ids import BackdoorIDS
from .base import ClassTexts, Eye, PictureDetector
from .bdetclip import BDetCLIP
from .conformal import any_p, conformal_p, rank_p
from .subspace import SubspaceDetection

__all__ = [
    "BDetCLIP",
    "BackdoorIDS",
    "ClassTexts",
    "Eye",
    "PictureDetector",
    "SubspaceDetection",
    "any_p",
    "conformal_p",
    "rank_p",
]
