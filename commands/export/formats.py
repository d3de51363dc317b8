"""Which format can hold which model, and what writes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ...contracts import UserMistake
from ...lightning_modules.encoders import Encoder
from ...lightning_modules.encoders.weights import bare_name
from .round_trip import ReadBack


class Exporter(ABC):
    """Writes one model in one format.

    Args:
        encoder: The model.
        name: Its encoder's name, ``FAMILY:NAME``.
    """

    library: ClassVar[str]
    """What reads the format, as ``library_name`` of a model card."""

    def __init__(self, encoder: Encoder, name: str) -> None:
        self.encoder, self.name = encoder, name

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the model, as the library that reads the folder names them."""
        return {bare_name(name): tensor.contiguous() for name, tensor in self.encoder.state_dict().items()}

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the model's files into an empty folder."""

    @abstractmethod
    def read(self, folder: Path) -> ReadBack:
        """Read them back."""

    @property
    @abstractmethod
    def usage(self) -> str:
        """Python, or commands, that load the folder ``DIR``, as a fenced block of Markdown."""


def exporter_for(encoder: Encoder, name: str, format: str | None) -> Exporter:
    """Find what writes a model in a format.

    Args:
        encoder: The model.
        name: Its encoder's name, ``FAMILY:NAME``.
        format: ``hf``, ``open_clip`` or ``safetensors``; the one of the model's own library where it is None.

    Raises:
        UserMistake: If the format cannot hold the model exactly.
    """
    # Each takes seconds to import.
    from .huggingface import ConvertedExporter, HuggingFaceExporter
    from .open_clip import OpenCLIPExporter
    from .tensors import OpenCLIPTensorsExporter, SmallTensorsExporter

    exporters: dict[tuple[str, str], type[Exporter]] = {
        ("hf", "hf"): HuggingFaceExporter,
        ("open_clip", "open_clip"): OpenCLIPExporter,
        ("open_clip", "hf"): ConvertedExporter,
        ("open_clip", "safetensors"): OpenCLIPTensorsExporter,
        ("small", "safetensors"): SmallTensorsExporter,
    }
    family = name.partition(":")[0]
    if format is None:
        format = next(kind for of, kind in exporters if of == family)
    if (family, format) not in exporters:
        possible = " or ".join(f"--format {kind}" for of, kind in exporters if of == family)
        why = {
            "hf": "it is transformers' own, and its tensors are safetensors there, beside the config that they need",
            "small": "its architecture is this package's own, which neither transformers nor open_clip has",
        }[family]
        raise UserMistake(f"{name} cannot be exported with --format {format}: {why}; use {possible}")
    return exporters[family, format](encoder, name)
