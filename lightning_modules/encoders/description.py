"""The JSON file that describes the ``model.safetensors`` beside it."""

from __future__ import annotations

import json
from pathlib import Path

from ...contracts import UserMistake
from ...files.writing import write_text
from .base import Encoder
from .huggingface_files import read_json
from .messages import one_line

DESCRIPTION = "encoder.json"


def write_description(encoder: Encoder, name: str, folder: Path) -> None:
    """Write ``encoder.json``: the encoder's name, which builds it, and how its input is prepared.

    Args:
        encoder: The encoder.
        name: ``FAMILY:NAME``, as ``build_encoder`` takes it.
        folder: Where to.
    """
    content = {
        "encoder": name,
        "image_size": encoder.image_size,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "context_length": encoder.context_length,
        "embedding_dim": encoder.embedding_dim,
    }
    write_text(folder / DESCRIPTION, json.dumps(content, indent=2) + "\n")


def described_encoder(folder: Path) -> str:
    """The name of the encoder in a folder, as the file says, which may lie.

    Raises:
        UserMistake: If there is no such file, or it names none.
    """
    name = read_json(folder / DESCRIPTION).get("encoder")
    if not isinstance(name, str):
        raise UserMistake(f"{one_line(folder)} holds no {DESCRIPTION} that names an encoder")
    return name
