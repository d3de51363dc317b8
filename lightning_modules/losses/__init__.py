"""Losses as pure modules: tensors in, a scalar out."""

from .contrastive import ContrastiveLoss

__all__ = ["ContrastiveLoss"]
