"""Where a module leaves files of its own."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer


def folder_to_write(trainer: Trainer) -> Path | None:
    """The folder of a run, made if need be; None where nothing is to be left: on other ranks, and in a rehearsal."""
    rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
    if rehearsal or not trainer.is_global_zero:
        return None
    folder = Path(trainer.default_root_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
