"""What is streamed: shards, poisoning, views, the zero-shot test sets."""

from .image_text import ImageTextDataModule
from .labelled import LabelledDataModule
from .poisoning import LabelConsistentPlan, PoisonPlan
from .triggers import BadNet, Blended, Trigger
from .views import EDA, ImageView, RandomHorizontalFlip, TextView, TransformView

__all__ = [
    "EDA",
    "BadNet",
    "Blended",
    "ImageTextDataModule",
    "ImageView",
    "LabelConsistentPlan",
    "LabelledDataModule",
    "PoisonPlan",
    "RandomHorizontalFlip",
    "TextView",
    "TransformView",
    "Trigger",
]
