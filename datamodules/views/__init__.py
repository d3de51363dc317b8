"""Views: second, augmented versions of pictures and captions, drawn afresh each epoch."""

from .base import ImageView, TextView
from .eda import EDA
from .flip import RandomHorizontalFlip
from .image import TransformView

__all__ = ["EDA", "ImageView", "RandomHorizontalFlip", "TextView", "TransformView"]
