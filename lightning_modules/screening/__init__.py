"""Detectors of triggered pictures at test time, and thresholds with a stated rate of false alarms."""

from .backdoor_ids import BackdoorIDS
from .base import ClassTexts, FrozenCLIP, PictureDetector
from .bdetclip import BDetCLIP
from .conformal import any_p, conformal_p, rank_p
from .subspace import SubspaceDetection

__all__ = [
    "BDetCLIP",
    "BackdoorIDS",
    "ClassTexts",
    "FrozenCLIP",
    "PictureDetector",
    "SubspaceDetection",
    "any_p",
    "conformal_p",
    "rank_p",
]
