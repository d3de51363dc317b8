"""Infer the architectures that the tensors of a file fit, from their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import torch

from .small import PRESETS, SmallCLIPEncoder
from .weights import dispensable

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by the names that open_clip, or the small encoder, gives to tensors."""

_OPENAIS = "input_resolution"
"""A number that OpenAI's archives hold beside their tensors; all of OpenAI's models have QuickGELU."""


def fitting_encoders(shapes: Shapes) -> list[str]:
    """Find the encoders that a file's tensors fit: all of their names, no others, and all of their shapes.

    Architectures that differ in nothing but what no tensor shows, such as the activation function, fit together. Those
    of open_clip whose text tower is transformers', and those of transformers, cannot be inferred without their
    configs. Nothing takes memory: models are built without numbers, and only those that could fit.

    Args:
        shapes: By name, without what wrappers put before it.

    Returns:
        Names that ``build_encoder`` takes, in open_clip's order. Of equal architectures the first.
    """
    small = [f"small:{preset}" for preset in PRESETS if _same(shapes, _shapes_of(SmallCLIPEncoder, preset))]
    found: list[str] = []
    seen: list[Any] = []
    for arch in open_clip.list_models():
        config = open_clip.get_model_config(arch)
        if config in seen or not _could_fit(shapes, config) or not fits_architecture(shapes, arch):
            continue
        seen.append(config)
        if _OPENAIS not in shapes or config.get("quick_gelu"):
            found.append(f"open_clip:{arch}")
    return small + found


def fits_architecture(shapes: Shapes, arch: str) -> bool:
    """Whether a file's tensors are those of an open_clip architecture, by names and shapes.

    Args:
        shapes: As ``fitting_encoders`` takes them.
        arch: One that ``open_clip.list_models()`` lists, whose text tower is open_clip's own.
    """

    def build(name: str) -> torch.nn.Module:
        model: torch.nn.Module = open_clip.create_model(name, device="meta", pretrained_hf=False)
        return model

    return _same(shapes, _shapes_of(build, arch))


def named_architecture(config: object) -> str | None:
    """The architecture of open_clip's whose config this is; None where there is none."""
    if not isinstance(config, Mapping):
        return None
    wanted = _without_start(config)
    return next(
        (str(a) for a in open_clip.list_models() if _without_start(open_clip.get_model_config(a)) == wanted), None
    )


def _without_start(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the numbers that training starts from, which say nothing of a trained model."""
    return {name: value for name, value in config.items() if name not in ("init_logit_scale", "init_logit_bias")}


def has_own_text_tower(arch: str) -> bool:
    """Whether an architecture can be built without a config from the hub."""
    return "hf_model_name" not in open_clip.get_model_config(arch)["text_cfg"]


def _could_fit(shapes: Shapes, config: Mapping[str, Any]) -> bool:
    """Whether an architecture is worth building: the text tower's table and the picture tower's kind are right."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    table = shapes.get("token_embedding.weight", shapes.get("text.token_embedding.weight"))
    if "hf_model_name" in text or table != (text.get("vocab_size", 49408), text.get("width", 512)):
        return False
    timm = any(name.startswith("visual.trunk.") for name in shapes)
    if timm or "timm_model_name" in vision:
        return timm and "timm_model_name" in vision
    if isinstance(vision.get("layers", 12), list):
        return "visual.layer1.0.conv1.weight" in shapes
    patch = vision.get("patch_size", 16)
    return shapes.get("visual.conv1.weight") == (vision.get("width", 768), 3, patch, patch)


def _shapes_of(build: Any, name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = build(name)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _same(found: Shapes, wanted: Shapes) -> bool:
    """Whether two have the same names and shapes, but for what versions of a library differ in."""
    one, other = (
        {
            name: () if name == "logit_scale" else shape
            for name, shape in shapes.items()
            if not dispensable(name) and name != "logit_bias"  # a model of any architecture may have it
        }
        for shapes in (found, wanted)
    )
    return one == other
