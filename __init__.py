"""Untrigger: poison CLIP, then make it forget."""

__version__ = "0.1.0"
