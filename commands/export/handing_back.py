"""A model handed back: written with its card, read back and compared."""

from __future__ import annotations

from pathlib import Path

from ...files.writing import new_folder, write_text
from .card import Checks, model_card
from .exporter import Exporter
from .history import is_marked, read_history
from .round_trip import check_round_trip


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
    if exporter.not_kept:
        print(
            f"{target}: {exporter.not_kept}, by which the model asks for its pictures to be resized, is not kept; "
            "--format open_clip keeps it"
        )
