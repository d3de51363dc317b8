"""The learning rate of a run that is resumed with another schedule than it began with."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim.lr_scheduler import LambdaLR


class ResumedSchedule(Callback):
    """Lets a resumed run follow its own schedule from the first step, and logs the rate.

    A checkpoint holds the rate of the step that was due by the schedule of *its* run. With another number of epochs,
    batch size, number of devices or warm-up, the same step has another rate: a finished run that is made longer would
    take its first step with the rate 0, and the next one with half of the peak.

    Larger batches or more devices make the schedule shorter: where the checkpoint is past its end, every step that is
    left has the rate 0, and that is logged.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the optimisers to the rate that their schedules have at this step, and log if it was another."""
        _warn_of_ended(trainer)
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            if not isinstance(schedule, LambdaLR):
                continue  # its rate follows from the one before
            groups, due = schedule.optimizer.param_groups, _due(schedule)
            had = [float(group["lr"]) for group in groups]
            if all(math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in zip(had, due, strict=True)):
                continue
            for group, rate in zip(groups, due, strict=True):
                group["lr"] = rate
            schedule._last_lr = list(due)
            described = _described(float(schedule.base_lrs[0]), pl_module)
            rank_zero_warn(
                "The schedule of this run is not that of the checkpoint's: the learning rate at step "
                f"{schedule.last_epoch} is {due[0]:.4g}, where it would have been {had[0]:.4g} ({described}, "
                f"0 at step {trainer.estimated_stepping_batches:g})"
            )


def _warn_of_ended(trainer: Trainer) -> None:
    """Log that nothing will be learnt any more, where all schedules have ended."""
    schedules: list[Any] = [config.scheduler for config in trainer.lr_scheduler_configs]
    total = trainer.estimated_stepping_batches
    if schedules and all(isinstance(each, LambdaLR) and _has_ended(each, total) for each in schedules):
        rank_zero_warn(
            f"The schedule of this run ends before the checkpoint's step {schedules[0].last_epoch}: the learning rate "
            f"is 0 from step {total:g} on, and nothing more is learnt. Give a larger --trainer.max_epochs, or the "
            "checkpoint's --data.batch_size, --trainer.accumulate_grad_batches and number of devices"
        )


def _has_ended(schedule: LambdaLR, total: float) -> bool:
    return schedule.last_epoch >= total and not any(_due(schedule))


def _due(schedule: LambdaLR) -> list[float]:
    """The rate of each group by the schedule, at the step that it is at."""
    step = schedule.last_epoch
    return [float(peak * rate(step)) for peak, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]


def _described(peak: float, module: LightningModule) -> str:
    warmup = module.hparams.get("warmup_steps")
    return f"peak {peak:.4g}" + ("" if warmup is None else f", {warmup} steps of warm-up")
