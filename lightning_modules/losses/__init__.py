"""Losses as pure modules: tensors in, a scalar out."""

from .contrastive import ContrastiveLoss
from .forgetting import ForgettingLoss
from .pair_losses import PairLosses
from .perturbation import PerturbationLoss
from .retention import RetentionLoss
from .self_supervised import SelfSupervisedLoss

__all__ = [
    "ContrastiveLoss",
    "ForgettingLoss",
    "PairLosses",
    "PerturbationLoss",
    "RetentionLoss",
    "SelfSupervisedLoss",
]
