"""What is read as a picture, from whatever source."""

from __future__ import annotations

FORMATS = ("JPEG", "PNG", "WEBP")
"""As Pillow calls them. It would open dozens of others, some of which run an interpreter."""
MAX_PIXELS = 25_000_000
"""As open_clip's guard: larger pictures are scans, posters or bombs."""
