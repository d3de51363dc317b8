"""Find the trainer of a module, and the data module and the folder of a run through its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from lightning.pytorch import LightningModule, Trainer

T = TypeVar("T")


def trainer_of(module: LightningModule) -> Trainer | None:
    """The trainer that a module is attached to; None outside a run, where Lightning's own property raises."""
    try:
        return module.trainer
    except RuntimeError:
        return None


def data_of(trainer: Trainer, kind: type[T]) -> T | None:
    """Find the data module of a run.

    Its members are looked up and not evaluated: a property that raises before ``setup`` raises where it is asked for.

    Args:
        trainer: The trainer of the run.
        kind: What it has to answer: a Protocol of ``contracts.py``.

    Returns:
        The data module; None where the run has none, or one of another kind.
    """
    data = getattr(trainer, "datamodule", None)  # Lightning sets it where one is given
    return data if isinstance(data, kind) else None


def folder_to_write(trainer: Trainer) -> Path | None:
    """The folder of a run, made if need be; None where nothing is to be left: on other ranks, and in a rehearsal."""
    rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
    if rehearsal or not trainer.is_global_zero:
        return None
    folder = Path(trainer.default_root_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
