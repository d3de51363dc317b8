"""The base class of all export formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from torch import Tensor

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

    @property
    def not_kept(self) -> str:
        """What the model asks for and the format does not hold, in words; empty where there is nothing."""
        return ""

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
