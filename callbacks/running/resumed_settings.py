"""A callback that applies new settings to a resumed run, and logs which have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from .found_rate import take_found_rate

_NOT_READ = ("encoder", "init_from")
"""Where the weights came from: those of the checkpoint replace them."""


class ResumedSettings(Callback):
    """Lets a resumed run have the settings that it is given, and logs which have changed.

    A checkpoint brings the optimiser's settings along, such as the learning rate and the weight decay, and Lightning
    restores them whatever the module asks for. Where the module's hyperparameters are others than those in the
    checkpoint, its optimisers and schedules get the module's settings back; moments and position in the schedule stay.

    The seed of ``seed_everything`` is compared too: the random generators go on from the checkpoint, but the order of
    the pairs and the row in ``results.csv`` follow from the seed.

    Lightning's tuners restore a checkpoint of their own before training: that is no run that resumes. A rate that its
    ``LearningRateFinder`` has found is what the optimisers and schedules start from.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, Any] = {}
        self._asked: list[list[dict[str, Any]]] = []
        self._earlier: list[Any] = []
        self._seed_before: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """The seed that the run was given; None where it was given none."""
        return {"seed": _seed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the seed of the checkpoint."""
        self._seed_before = state_dict["seed"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the optimisers of an earlier fit of this trainer's."""
        self._earlier = list(trainer.optimizers)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what the checkpoint was written with, if it is what the run resumes from."""
        began = trainer.optimizers != self._earlier  # they are made after that has been read
        if began and not trainer.strategy.restore_checkpoint_after_setup:
            return
        self._before = dict(checkpoint.get("hyper_parameters") or {})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the optimisers were made with, before the checkpoint's state gets into them."""
        if pl_module.automatic_optimization:
            take_found_rate(trainer)
        self._asked = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, warn, and give the optimisers back what they were made with."""
        _compare_seeds(self._seed_before)
        self._seed_before = None
        now = dict(pl_module.hparams)
        before, self._before = self._before, {}
        changed = [
            name
            for name in before
            if not name.startswith("_")
            and name in now
            and name not in _NOT_READ
            and _plain(before[name]) != _plain(now[name])
        ]
        start = now.get("init_from")
        if before and start is not None and start != before.get("init_from"):
            rank_zero_warn(f"model.init_from {start} is not read: the checkpoint has the weights")
        if not changed:
            return
        changes = ", ".join(f"model.{name} {now[name]} instead of {before[name]}" for name in changed)
        rank_zero_warn(f"The run resumes with other settings than those of the checkpoint: {changes}")
        for optimizer, groups in zip(trainer.optimizers, self._asked, strict=True):
            for group, asked in zip(optimizer.param_groups, groups, strict=True):
                peak, new = group.get("initial_lr", group["lr"]), asked.get("initial_lr", asked["lr"])
                rate = group["lr"] * new / peak if peak else asked["lr"]
                group.update(asked)
                group["lr"] = rate
        _follow(trainer)


def _seed() -> int | None:
    """What ``seed_everything`` has set."""
    text = os.environ.get("PL_GLOBAL_SEED")
    return None if text is None else int(text)


def _compare_seeds(before: int | None) -> None:
    now = _seed()
    if before is not None and now is not None and now != before:
        rank_zero_warn(
            "The run resumes with another seed than that of the checkpoint: "
            f"seed_everything {now} instead of {before}; what is drawn from now on, unless data.seed and "
            f"model.seed are given, and the rows in results.csv are those of seed {now}"
        )


def _follow(trainer: Trainer) -> None:
    """Let the schedules start from the peaks of the optimisers that they are of."""
    for config in trainer.lr_scheduler_configs:
        schedule: Any = config.scheduler
        groups = schedule.optimizer.param_groups
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [group["initial_lr"] for group in groups]
            schedule._last_lr = [group["lr"] for group in groups]


def _plain(value: Any) -> Any:
    """A setting as it compares: a checkpoint may hold a list where there was a tuple."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, Iterable) and not isinstance(value, str) else value
