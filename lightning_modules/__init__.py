"""What is trained: poisoned CLIP, its defences, and the encoders and losses they share."""

from .base import BaseCLIPModule
from .poisoned_clip import PoisonedCLIP

__all__ = ["BaseCLIPModule", "PoisonedCLIP"]
