"""Building an encoder from its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ...contracts import UserMistake
from .base import Encoder
from .messages import one_line

# Imported only when asked for: their libraries take seconds to import.
_FAMILIES = {
    "hf": (".huggingface", "HuggingFaceEncoder", "hf:FOLDER or hf:HUB_NAME (transformers' CLIP and SigLIP)"),
    "open_clip": (".open_clip", "OpenCLIPEncoder", "open_clip:ARCH or open_clip:ARCH/TAG (such as RN50, RN50/openai)"),
    "small": (
        ".small",
        "SmallCLIPEncoder",
        "small:PRESET or small:FOLDER (for a CPU, such as small:base-32)",
    ),
}


def has_weights(name: str) -> bool:
    """Whether an encoder's name stands for trained weights, and not for an architecture alone.

    Args:
        name: As for ``build_encoder``, which takes it.
    """
    family, _, rest = name.partition(":")
    return (
        family == "hf"
        or (family == "open_clip" and "/" in rest)
        or (family == "small" and Path(rest).expanduser().is_dir())
    )


def build_encoder(name: str, pretrained: bool = True) -> Encoder:
    """Build an encoder.

    Args:
        name: ``FAMILY:NAME``, where the family is ``hf``, ``open_clip`` or ``small``.
        pretrained: Whether to load the weights that the name stands for; they are random otherwise.

    Returns:
        The encoder.

    Raises:
        UserMistake: If there is no such encoder, in one line with what there is.
    """
    family, colon, rest = name.partition(":")
    if not colon or not rest or family not in _FAMILIES:
        there_is = "; ".join(usage for _, _, usage in _FAMILIES.values())
        raise UserMistake(f"unknown encoder {one_line(name)!r}; there are {there_is}")
    module, class_name, _ = _FAMILIES[family]
    encoder: Encoder = getattr(import_module(module, __package__), class_name)(rest, pretrained)
    return encoder
