"""Encoders of pictures and captions: one interface for three families, and the loading of weights."""

from __future__ import annotations

from .base import Encoder
from .factory import build_encoder, has_weights
from .weights import load_weights

__all__ = ["Encoder", "build_encoder", "has_weights", "load_weights"]
