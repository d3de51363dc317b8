"""Losses as pure modules: tensors in, a scalar out."""

from .contrastive import ContrastiveLoss
from .self_supervised import SelfSupervisedLoss

__all__ = ["ContrastiveLoss", "SelfSupervisedLoss"]
