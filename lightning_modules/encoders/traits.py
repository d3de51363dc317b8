"""Compare the activation, normalisation and other settings in a model's files with an encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import open_clip
from lightning.pytorch.utilities import rank_zero_warn
from transformers import CLIPTextConfig, CLIPVisionConfig, SiglipTextConfig, SiglipVisionConfig

from ...contracts import UserMistake
from .base import Encoder
from .checkpoint_files import IN_FOLDER, read_pickled
from .description import DESCRIPTION
from .huggingface_files import normalisation, read_json
from .messages import one_line
from .open_clip_files import OPEN_CLIP_CONFIG

Traits = Mapping[str, Any]
"""Values by what they are of, as a message calls it. What is not said is not there."""

_ACTIVATIONS = {
    **dict.fromkeys(("quick_gelu", "quickgelu"), "QuickGELU"),
    "gelu": "GELU",
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_tanh"), "GELU (tanh)"),
}
_ACTIVATION, _HEADS = "activation of the {} tower", "number of attention heads of the {} tower"
_DECISIVE = ("activation", "number of attention heads")
"""How what the features depend on begins, and no tensor shows."""
_DEFAULTS = {"clip": (CLIPVisionConfig, CLIPTextConfig), "siglip": (SiglipVisionConfig, SiglipTextConfig)}
"""What a ``config.json`` of transformers leaves out."""
_OF_OPENAI = "input_resolution"
"""A number that OpenAI's archives hold beside their tensors."""
_OPENAI: tuple[None, Traits] = (None, {_ACTIVATION.format("text"): "QuickGELU"})
"""What all of OpenAI's models have; a residual network has no activation to choose."""


def open_clip_traits(config: Mapping[str, Any]) -> Traits:
    """Of a model that open_clip builds from a config, as ``open_clip_config.json`` has it under ``model_cfg``."""
    vision, text = (
        part if isinstance(part := config.get(name), Mapping) else {} for name in ("vision_cfg", "text_cfg")
    )
    quick = config.get("quick_gelu", False)
    found: dict[str, Any] = {}
    # A residual network has ReLU, and the towers of timm and transformers have their own.
    if not isinstance(vision.get("layers"), list) and "timm_model_name" not in vision:
        found[_ACTIVATION.format("image")] = _open_clip_activation(quick, vision)
        found[_HEADS.format("image")] = _quotient(vision.get("width", 768), vision.get("head_width", 64))
        found["patch size"] = vision.get("patch_size")
    if "hf_model_name" not in text:
        found[_ACTIVATION.format("text")] = _open_clip_activation(quick, text)
        found[_HEADS.format("text")] = text.get("heads", 8)
        found["context length"] = text.get("context_length", 77)
    return _said(found | {"image size": vision.get("image_size")})


def transformers_traits(config: Mapping[str, Any]) -> Traits:
    """Of a model of transformers, as its ``config.json`` describes it."""
    vision, text = (
        part if isinstance(part := config.get(name), Mapping) else {} for name in ("vision_config", "text_config")
    )
    defaults = _DEFAULTS.get(str(config.get("model_type")))
    if defaults is not None:
        vision, text = ({**kind().to_dict(), **part} for kind, part in zip(defaults, (vision, text), strict=True))
    towers = (("image", vision), ("text", text))
    acts = {tower: part.get("hidden_act") for tower, part in towers}
    return _said(
        {_ACTIVATION.format(tower): act and _ACTIVATIONS.get(str(act), str(act)) for tower, act in acts.items()}
        | {_HEADS.format(tower): part.get("num_attention_heads") for tower, part in towers}
        | {"image size": vision.get("image_size"), "patch size": vision.get("patch_size")}
        | {"context length": text.get("max_position_embeddings")}
    )


def check_traits(encoder: Encoder, source: Path, names: Iterable[str] = ()) -> None:
    """Compare what a file says of its model with the encoder that its tensors were loaded into.

    Args:
        encoder: With the file's tensors.
        source: A checkpoint or a folder, or a file of weights in one.
        names: Names of the file's tensors.

    Raises:
        UserMistake: If they differ in the activation function or the number of attention heads: the tensors fit, and
            the features are others.

    Warns:
        UserWarning: If they differ in how pictures are prepared.
    """
    named, described = _OPENAI if _OF_OPENAI in names else _of_source(source)
    has = encoder.traits
    for what, value in described.items():
        if what not in has or _alike(value, has[what]):
            continue
        fault = f"{source} says that the {what} is {_shown(value)}, and this encoder's is {_shown(has[what])}"
        if what.startswith(_DECISIVE):
            such = named or "such as open_clip:ViT-B-32-quickgelu for one with QuickGELU"
            raise UserMistake(
                f"{fault}: name the encoder that it was trained as, {such}; "
                "if the file is wrong, give its tensors alone"
            )
        rank_zero_warn(f"{fault}: its features may be worse than those it was trained for")


def _of_source(source: Path) -> tuple[str | None, Traits]:
    """The encoder that a file names, and what is said of it."""
    if source.is_dir():
        return _of_folder(source)
    if source.name not in IN_FOLDER and source.suffix != ".safetensors":
        content = read_pickled(source)
        settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
        if isinstance(settings, Mapping) and settings.get("encoder") is not None:
            return _of_name(settings["encoder"])
    return _of_folder(source.parent)  # whatever the file of the weights is called


def _of_folder(folder: Path) -> tuple[str | None, Traits]:
    if (folder / DESCRIPTION).is_file():
        content = read_json(folder / DESCRIPTION)
        named, traits = _of_name(content.get("encoder"))
        stated = {"image size": "image_size", "context length": "context_length", "mean": "mean", "std": "std"}
        return named, {**traits, **_said({what: content.get(name) for what, name in stated.items()})}
    config = read_json(folder / "config.json")
    if config.get("model_type") in ("clip", "siglip"):
        mean, std = normalisation(folder, config["model_type"])
        return f"hf:{folder}", {**transformers_traits(config), "mean": mean, "std": std}
    content = read_json(folder / OPEN_CLIP_CONFIG)
    model, prepared = content.get("model_cfg"), content.get("preprocess_cfg")
    traits = open_clip_traits(model) if isinstance(model, Mapping) else {}
    if not isinstance(prepared, Mapping):
        return None, traits
    stated = {"image size": "size", "mean": "mean", "std": "std"}
    return None, {**traits, **_said({what: prepared.get(name) for what, name in stated.items()})}


def _of_name(name: object) -> tuple[str | None, Traits]:
    """What the name of an encoder says; nothing that it names is imported or fetched."""
    if not isinstance(name, str):
        return None, {}
    family, _, rest = name.partition(":")
    if family == "hf" and Path(rest).expanduser().is_dir():
        return one_line(name), _of_folder(Path(rest).expanduser())[1]
    arch, _, tag = rest.partition("/")
    if family != "open_clip" or arch not in open_clip.list_models():
        return one_line(name), {}
    about = open_clip.get_pretrained_cfg(arch, tag) if tag and open_clip.is_pretrained_cfg(arch, tag) else {}
    config = open_clip.get_model_config(arch)
    traits = open_clip_traits({**config, "quick_gelu": about.get("quick_gelu") or config.get("quick_gelu", False)})
    of_pictures = {"mean": about.get("mean", open_clip.OPENAI_DATASET_MEAN)}
    of_pictures["std"] = about.get("std", open_clip.OPENAI_DATASET_STD)
    return one_line(name), {**traits, **of_pictures}


def _quotient(width: object, head_width: object) -> int | None:
    whole = isinstance(width, int) and isinstance(head_width, int) and head_width > 0
    return width // head_width if whole else None  # type: ignore[operator]


def _open_clip_activation(quick: object, part: Mapping[str, Any]) -> str:
    options = part.get("act_kwargs")
    is_tanh = isinstance(options, Mapping) and options.get("approximate") == "tanh"
    return "QuickGELU" if quick else "GELU (tanh)" if is_tanh else "GELU"


def _said(traits: Traits) -> dict[str, Any]:
    return {what: value for what, value in traits.items() if value is not None}


def _alike(one: object, other: object) -> bool:
    """Whether two values are the same, as far as files write numbers."""
    pair = [value if isinstance(value, list | tuple) else [value] for value in (one, other)]
    if len(pair[0]) != len(pair[1]):
        # The side of a square is also written twice.
        return len({*map(str, pair[0]), *map(str, pair[1])}) == 1
    return all(
        math.isclose(left, right, rel_tol=1e-3, abs_tol=1e-4)
        if isinstance(left, int | float) and isinstance(right, int | float)
        else left == right
        for left, right in zip(*pair, strict=True)
    )


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(one_line(part, 20) for part in value)
    return one_line(value, 60)
