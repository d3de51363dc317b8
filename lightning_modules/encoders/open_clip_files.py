"""Read and check the preprocessing of an open_clip folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from .description import DESCRIPTION
from .huggingface_files import read_json, triple
from .messages import one_line

OPEN_CLIP_CONFIG = "open_clip_config.json"


def preprocessing_of(folder: Path) -> dict[str, Any]:
    """How a folder says that pictures are prepared.

    Args:
        folder: Folder that open_clip has written, or ``untrigger export --format safetensors``.

    Returns:
        Some of open_clip's ``preprocess_cfg``; empty where nothing is said.

    Raises:
        UserMistake: If it says what cannot be.
    """
    path = folder / OPEN_CLIP_CONFIG
    said = read_json(path).get("preprocess_cfg") or read_json(folder / DESCRIPTION)
    if not isinstance(said, Mapping):
        raise UserMistake(f"{path}: preprocess_cfg is no object")
    return dict(_checked_preprocessing(said, path))


def _checked_preprocessing(said: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    for name in ("mean", "std"):
        if said.get(name) is not None:
            values = triple(said[name], name, path)
            if name == "std" and min(values) <= 0:
                raise UserMistake(f"{path}: std must be above 0")
            yield name, values
    for name, known in (
        ("interpolation", ("bicubic", "bilinear", "random")),
        ("resize_mode", ("shortest", "longest", "squash")),
    ):
        if said.get(name) is not None:
            if said[name] not in known:
                raise UserMistake(f"{path}: {name} is {one_line(said[name])!r}, not one of {', '.join(known)}")
            yield name, said[name]
