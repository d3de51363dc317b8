"""How a model asks for pictures to be resized, where that is not what is done here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from .messages import one_line

_USUAL = {"resize_mode": "shortest", "interpolation": "bicubic"}
"""What open_clip and transformers' CLIP do unless a model asks for something else. This package crops the centre, then
resizes bicubically, whatever a model asks for."""
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's, by their numbers, which transformers' ``resample`` holds."""


def unusual_preparation(asked: Mapping[str, Any]) -> str:
    """How a model asks for pictures to be resized, where that is not as usual: ``resize_mode squash``, say.

    Args:
        asked: ``resize_mode``, ``interpolation`` and ``side``, in pixels, of those that are said.
    """
    return " and ".join(
        f"{name} {one_line(asked[name], 40)}" for name, usual in _USUAL.items() if asked.get(name, usual) != usual
    )


def warn_of_preparation(model: str, asked: Mapping[str, Any], image_size: int) -> None:
    """Compare how a model asks for pictures to be resized with what is done here.

    Args:
        model: What it is called in the message.
        asked: As for ``unusual_preparation``.
        image_size: Side of the model's input, in pixels.

    Warns:
        UserWarning: If they differ.
    """
    side = asked.get("side", image_size)
    if side != image_size:
        rank_zero_warn(
            f"{model}: its image processor makes pictures of {one_line(side, 40)} pixels, and the model itself takes "
            f"{image_size}: {image_size} is used"
        )
    if unusual := unusual_preparation(asked):
        rank_zero_warn(
            f"{model} asks for pictures prepared with {unusual}; here the centre is cropped and resized bicubically, "
            "so its features may be worse than those it was trained for"
        )


def asked_by_processor(processor: Mapping[str, Any]) -> dict[str, Any]:
    """What an image processor of transformers says of how pictures are resized.

    Args:
        processor: Its settings; what is of another form than transformers writes counts as not said.

    Returns:
        As for ``unusual_preparation``.
    """
    asked: dict[str, Any] = {}
    resample, size = processor.get("resample"), _sides(processor.get("size"))
    if isinstance(resample, int) and 0 <= resample < len(_FILTERS):
        asked["interpolation"] = _FILTERS[resample]
    if processor.get("do_resize") is False:
        return {"resize_mode": "none"}
    crops = processor.get("do_center_crop", True) is not False
    crop = _sides(processor.get("crop_size")) if crops else {}
    within = crop or size
    sides = {within[name] for name in ("height", "width", "shortest_edge") if name in within}
    if len(sides) == 1:
        asked["side"] = sides.pop()
    if "height" in size:
        asked["resize_mode"] = "squash"
    elif crop and "shortest_edge" in size and size["shortest_edge"] != asked.get("side"):
        asked["resize_mode"] = f"shortest, to {size['shortest_edge']} pixels, of which a part is cropped"
    elif "shortest_edge" in size and not crops:
        asked["resize_mode"] = "shortest, of which nothing is cropped"
    return asked


def _sides(value: Any) -> dict[str, int]:
    """Height and width, or the shortest edge, as transformers writes them, before 2023 as one number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"shortest_edge": value}
    if not isinstance(value, Mapping):
        return {}
    return {name: side for name, side in value.items() if isinstance(side, int) and not isinstance(side, bool)}
