"""What open_clip says of the preparation of pictures, and other formats have no room for."""

from __future__ import annotations

from ...lightning_modules.encoders.open_clip import OpenCLIPEncoder

_USUAL = {"resize_mode": "shortest", "interpolation": "bicubic"}
"""What open_clip does unless a model asks for something else. This package crops the centre, then resizes bicubically,
whatever a model asks for."""


def unusual_preparation(encoder: OpenCLIPEncoder) -> str:
    """How a model asks for pictures to be resized, where that is not as usual: ``resize_mode squash``, say."""
    asked = encoder.preprocess_cfg
    return " and ".join(f"{name} {asked[name]}" for name, usual in _USUAL.items() if asked.get(name, usual) != usual)
