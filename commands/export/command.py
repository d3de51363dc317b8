"""``untrigger export``: hand a model back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...contracts import UserMistake
from ...files import new_folder, write_text
from ...reading import user_path
from .card import Checks, model_card
from .formats import Exporter, exporter_for
from .history import is_marked, read_history
from .round_trip import check_round_trip

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
        encoder: What the model is, as for --model.encoder, where the file does not tell.
    """
    from ...lightning_modules.encoders.identify import open_encoder  # brings open_clip along, which takes seconds

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


def hand_back(exporter: Exporter, source: Path, target: Path, checks: Checks | None = None) -> None:
    """Write a model with its card, read it back, and say so.

    Args:
        exporter: What writes it, with the model.
        source: Where the model lay; the files of the run beside it go into the card.
        target: A new or an empty folder.
        checks: What the model was found to be before and after, where that is known.
    """
    opened, name = exporter.encoder, exporter.name
    history, marked = read_history(source), is_marked(source)
    with new_folder(target) as unfinished:
        exporter.write(unfinished)
        card = model_card(target.name, opened, name, exporter, history, marked, checks)
        difference = check_round_trip(opened, exporter.tensors, exporter.read(unfinished))
        write_text(unfinished / "README.md", card)
    print(
        f"{target}: {name} for {exporter.library}; read back, embeddings differ by {difference:.1e} at "
        "most, every tensor is the same"
    )
