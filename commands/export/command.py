"""``untrigger export``: hand a model back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...contracts import UserMistake
from ...errors.importing import importing
from ...files.reading import user_path
from ..declaration import Command

_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")


def export(
    model: str, folder: str, format: Literal["hf", "open_clip", "safetensors"] | None = None, encoder: str | None = None
) -> None:
    """Hand a model back in the format of transformers or open_clip, with a model card.

    The folder loads in plain transformers or open_clip, without this package. What is beside the checkpoint in its run
    folder (config.yaml, results.csv, suspects.csv, ubt.json) goes into the card: what was found, what was done, clean
    accuracy and attack success rate. The folder is read back before it gets its name: embeddings are the same. Nothing
    is overwritten, and nothing in the checkpoint is run.

    Example:
        untrigger export runs/badnet-ubt/last.ckpt cleaned --format hf

    Args:
        model: A checkpoint of a run, a state dict of open_clip's or CleanCLIP's, or the folder of a model.
        folder: Where to; a new or an empty folder.
        format: hf (transformers), open_clip, or safetensors (the tensors and a JSON file that says what they are); the
            one of the model's own library unless given.
        encoder: What the model is, as for --model.encoder, where the file does not say.
    """
    with importing():  # they bring open_clip along, which takes seconds
        from ...lightning_modules.encoders.identify import open_encoder
        from .formats import exporter_for
        from .handing_back import hand_back

    target = user_path(folder, "folder")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserMistake(f"{folder} is not an empty folder, and nothing is overwritten: give a new one")
    source = _only_file(user_path(model, "model"))
    opened, name = open_encoder(str(source), encoder)
    hand_back(exporter_for(opened, name, format), source, target)


def _only_file(model: Path) -> Path:
    """The checkpoint in a folder that holds nothing else, as ``clean`` leaves one that came as a file."""
    found = list(model.iterdir()) if model.is_dir() else []
    return found[0] if len(found) == 1 and found[0].suffix in _CHECKPOINTS else model


COMMAND = Command(export, words={"model": None, "folder": None})
