"""Find the exporter of a format, for the models that it can hold."""

from __future__ import annotations

from ...contracts import UserMistake
from ...lightning_modules.encoders import Encoder
from ...lightning_modules.encoders.visual_prompts import prompted
from .exporter import Exporter
from .huggingface import ConvertedExporter, HuggingFaceExporter
from .open_clip import OpenCLIPExporter
from .tensors import OpenCLIPTensorsExporter, SmallTensorsExporter

_EXPORTERS: dict[tuple[str, str], type[Exporter]] = {
    ("hf", "hf"): HuggingFaceExporter,
    ("open_clip", "open_clip"): OpenCLIPExporter,
    ("open_clip", "hf"): ConvertedExporter,
    ("open_clip", "safetensors"): OpenCLIPTensorsExporter,
    ("small", "safetensors"): SmallTensorsExporter,
}
"""By the model's library and the format."""


def exporter_for(encoder: Encoder, name: str, format: str | None) -> Exporter:
    """Find what writes a model in a format.

    Args:
        encoder: The model.
        name: Its encoder's name, ``FAMILY:NAME``.
        format: ``hf``, ``open_clip`` or ``safetensors``; the one of the model's own library where it is None.

    Raises:
        UserMistake: If the format cannot hold the model exactly.
    """
    family = name.partition(":")[0]
    if prompted(encoder.token_blocks):
        format = _for_prompts(name, family, format)
    if format is None:
        format = next(kind for of, kind in _EXPORTERS if of == family)
    if (family, format) not in _EXPORTERS:
        possible = " or ".join(f"--format {kind}" for of, kind in _EXPORTERS if of == family)
        why = {
            "hf": "it is transformers' own, and its tensors are safetensors there, beside the config that they need",
            "small": "its architecture is this package's own, which neither transformers nor open_clip has",
        }[family]
        raise UserMistake(f"{name} cannot be exported with --format {format}: {why}; use {possible}")
    return _EXPORTERS[family, format](encoder, name)


def _for_prompts(name: str, family: str, format: str | None) -> str:
    """The one format that has room for visual prompts: a folder without them would be the model before its defence."""
    if family == "open_clip" and format in (None, "safetensors"):
        return "safetensors"
    instead = (
        "use --format safetensors, which untrigger reads"
        if family == "open_clip"
        else "keep its checkpoint, which model.init_from reads, and --ckpt_path of validate, test and predict"
    )
    raise UserMistake(f"{name} has visual prompts, for which transformers and open_clip have no room: {instead}")
