"""An epoch that the end of a run cuts short: Lightning counts it as done, and its checkpoints must not."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer


def ends_here(trainer: Trainer) -> bool:
    """Whether the batch that was trained on is the run's last: by ``max_steps``, or as it was asked to stop."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    return bool(trainer.should_stop and trainer.fit_loop._can_stop_early)


def is_cut_short(trainer: Trainer) -> bool:
    """Whether an epoch was left and counted before its last batch, and no other one has begun."""
    epochs, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    counted = epochs.ready == epochs.processed  # type: ignore[attr-defined]  # Lightning types the base class
    return counted and 0 < batches.current.ready < trainer.num_training_batches and not batches.is_last_batch


def reopen_epoch(checkpoint: dict[str, Any], stepped: bool) -> None:
    """Let the checkpoint of an epoch that was cut short resume in it, as one does from the end of its last batch.

    Args:
        checkpoint: What is about to be written; its counters are changed.
        stepped: Whether the optimiser has stepped with that batch.
    """
    loops = checkpoint["loops"]["fit_loop"]
    for counter in (loops["epoch_progress"][name] for name in ("total", "current")):
        counter["processed"] -= 1
        counter["completed"] = min(counter["completed"], counter["processed"])
    for counter in (loops["epoch_loop.batch_progress"][name] for name in ("total", "current")):
        counter["completed"] -= 1
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= int(stepped)
    checkpoint["epoch"] = loops["epoch_progress"]["current"]["completed"]
