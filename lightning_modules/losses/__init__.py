"""Losses as pure modules: tensors in, a scalar out."""

from .contrastive import ContrastiveLoss
from .forgetting import ForgettingLoss
from .retention import RetentionLoss
from .self_supervised import SelfSupervisedLoss

__all__ = ["ContrastiveLoss", "ForgettingLoss", "RetentionLoss", "SelfSupervisedLoss"]
