from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from training import quiet_trainer

from untrigger.callbacks import ResumedSchedule
from untrigger.lightning_modules.optimisation import adamw, warmup_cosine, with_schedule

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


class Scheduled(LightningModule):
    def __init__(self, warmup_steps: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.warmup_steps = warmup_steps

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).sum()

    def configure_optimizers(self) -> Any:
        total = int(self.trainer.estimated_stepping_batches)
        groups = [{"params": [self.weight]}]
        optimizer = adamw(groups, 0.1, (0.9, 0.99), 1e-8)
        schedule = with_schedule(optimizer, self.warmup_steps, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(folder: Path, epochs: int, batches: int = 10, warmup_steps: int = 2, resume: bool = True) -> list[float]:
    """The rates of the steps that a run takes."""
    rates = Rates()
    trainer = quiet_trainer(folder, max_epochs=epochs, callbacks=[ResumedSchedule(), rates])
    loader = DataLoader(torch.ones(batches, 1))  # type: ignore[arg-type]  # a tensor is a data set
    trainer.fit(Scheduled(warmup_steps), loader, ckpt_path=folder / "run.ckpt" if resume else None)
    trainer.save_checkpoint(folder / "run.ckpt")
    return rates.seen


def planned(steps: range, total: int, warmup_steps: int = 2) -> list[float]:
    return [0.1 * warmup_cosine(step, warmup_steps, total) for step in steps]


def test_a_finished_run_that_is_made_longer_follows_the_longer_schedule(tmp_path: Path) -> None:
    assert fit(tmp_path, 1, resume=False) == pytest.approx(planned(range(10), 10))
    reported = (
        r"rate at step 10 is 0\.05868, where it would have been 0 \(peak 0\.1, 2 steps of warm-up, 0 at step 20\)"
    )
    with pytest.warns(UserWarning, match=reported):
        assert fit(tmp_path, 2) == pytest.approx(planned(range(10, 20), 20))


def test_a_finished_run_whose_new_schedule_has_ended_before_is_told_so(tmp_path: Path) -> None:
    fit(tmp_path, 2, resume=False)
    reported = r"ends before the checkpoint's step 20: the learning rate is 0 from step 15 on, .*--trainer\.max_epochs"
    with pytest.warns(UserWarning, match=reported):
        assert fit(tmp_path, 3, batches=5) == [0] * 5


def test_a_finished_run_that_is_to_end_where_it_ended_is_left_alone(tmp_path: Path) -> None:
    fit(tmp_path, 2, resume=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert fit(tmp_path, 2) == []
    assert not [warning for warning in warned if "schedule of this run" in str(warning.message)]


@pytest.mark.parametrize("changed", [{"warmup_steps": 15}, {"batches": 20}])
def test_another_warm_up_or_number_of_steps_holds_from_the_first_step(changed: dict[str, int], tmp_path: Path) -> None:
    fit(tmp_path, 1, resume=False)
    total, warmup = 2 * changed.get("batches", 10), changed.get("warmup_steps", 2)
    with pytest.warns(UserWarning, match="The schedule of this run is not that of the checkpoint's"):
        seen = fit(tmp_path, 2, **changed)
    assert seen == pytest.approx(planned(range(10, 10 + len(seen)), total, warmup))


def test_the_same_schedule_resumes_without_a_word(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 0

    trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=[Stop(), ResumedSchedule()])
    trainer.fit(Scheduled(), DataLoader(torch.ones(10, 1)))  # type: ignore[arg-type]  # a tensor is a data set
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert trainer.global_step == 10
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert fit(tmp_path, 2) == pytest.approx(planned(range(10, 20), 20))
    assert not [warning for warning in warned if "schedule of this run" in str(warning.message)]
