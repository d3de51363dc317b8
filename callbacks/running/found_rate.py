"""The learning rate that Lightning's ``LearningRateFinder`` has found."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from torch.optim.lr_scheduler import LambdaLR


def take_found_rate(trainer: Trainer) -> None:
    """Let the optimisers and their schedules start from a rate that was found: Lightning's are back at theirs by then.

    Args:
        trainer: The trainer of a run that starts; its finder, if it has one, is through.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # a connector sets it
    for finder in (callback for callback in callbacks if isinstance(callback, LearningRateFinder)):
        found = finder.optimal_lr.suggestion() if finder.optimal_lr and finder._update_attr else None
        if found is not None:
            _start_from(trainer, found)


def _start_from(trainer: Trainer, peak: float) -> None:
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = peak
            if "initial_lr" in group:
                group["initial_lr"] = peak
    for config in trainer.lr_scheduler_configs:
        schedule: Any = config.scheduler
        groups = schedule.optimizer.param_groups
        if isinstance(schedule, LambdaLR):
            for group, factor in zip(groups, schedule.lr_lambdas, strict=True):
                group["lr"] = peak * factor(schedule.last_epoch)
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [peak] * len(groups)
            schedule._last_lr = [group["lr"] for group in groups]
