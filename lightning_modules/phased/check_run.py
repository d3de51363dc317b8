"""Check before a run in phases starts that its trainer and data fit."""

from __future__ import annotations

from typing import Any

from ...contracts import ImageTextData, UserMistake
from ...trainer.lookup import data_of


def check_run(trainer: Any, name: str) -> None:
    """Check that a trainer leaves the phases their epochs, and that its data can be asked for by key.

    Args:
        trainer: Trainer of the run; a rehearsal (``fast_dev_run``) is asked for its data only.
        name: Name of the module, for the message.

    Raises:
        UserMistake: If it does not, or the data is of another kind or fills no batch.
    """
    data = data_of(trainer, ImageTextData)
    if data is None:
        raise UserMistake(f"{name} needs a data module that selects pairs by key, such as ImageTextDataModule")
    if trainer.fast_dev_run:
        return
    if trainer.max_epochs != -1 or trainer.max_steps != -1:
        raise UserMistake(f"{name} ends by itself: set trainer.max_epochs to -1 and leave trainer.max_steps out")
    if (trainer.min_epochs or 0) > 1 or (trainer.min_steps or 0) > 0:
        raise UserMistake(f"{name} ends by itself: leave trainer.min_epochs and trainer.min_steps out")
    if trainer.reload_dataloaders_every_n_epochs != 1:
        raise UserMistake(
            f"{name} streams other pairs in each phase: set trainer.reload_dataloaders_every_n_epochs to 1"
        )
    if data.pairs < data.global_batch_size:
        raise UserMistake(f"{data.pairs} training pairs do not fill one batch of {data.global_batch_size}")
