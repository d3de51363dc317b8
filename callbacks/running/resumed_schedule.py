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
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the optimisers to the rate that their schedules have at this step, and log if it was another."""
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            if not isinstance(schedule, LambdaLR):
                continue  # its rate follows from the one before
            groups, step = schedule.optimizer.param_groups, schedule.last_epoch
            due = [peak * rate(step) for peak, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
            had = [float(group["lr"]) for group in groups]
            if all(math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in zip(had, due, strict=True)):
                continue
            for group, rate in zip(groups, due, strict=True):
                group["lr"] = rate
            schedule._last_lr = list(due)
            described = _described(float(schedule.base_lrs[0]), pl_module)
            rank_zero_warn(
                f"The schedule of this run is not that of the checkpoint's: the learning rate at step {step} is "
                f"{due[0]:.4g}, where it would have been {had[0]:.4g} ({described}, "
                f"0 at step {trainer.estimated_stepping_batches:g})"
            )


def _described(peak: float, module: LightningModule) -> str:
    warmup = module.hparams.get("warmup_steps")
    return f"peak {peak:.4g}" + ("" if warmup is None else f", {warmup} steps of warm-up")
