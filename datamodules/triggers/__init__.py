"""Triggers: pure functions that stamp 8-bit pictures."""

from .badnet import BadNet
from .base import Trigger
from .blended import Blended

__all__ = ["BadNet", "Blended", "Trigger"]
