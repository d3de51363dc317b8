from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from untrigger.callbacks import SamplesPerSecond


class _Clock(Callback):
    """A batch takes half a second, the first one twenty, and a batch of a validation a hundred."""

    now = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.now += 0.5 if trainer.global_step else 20

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.now += 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr("untrigger.callbacks.measures.throughput.perf_counter", lambda: clock.now)
    return clock


def test_start_and_validation_do_not_count(run: Any, clock: _Clock) -> None:
    logger = CSVLogger(run.folder)
    trainer = run.trainer(clock, SamplesPerSecond(), logger=logger, log_every_n_steps=3, max_epochs=2)
    trainer.fit(run.Module(), datamodule=run.Data(train_batches=7))
    with Path(logger.log_dir, "metrics.csv").open(newline="") as file:
        logged = {int(row["step"]): row["train/samples_per_second"] for row in csv.DictReader(file)}
    # Four pairs in half a second, over steps 2 and 3, 4 to 6, 9, and 10 to 12; step 8 opens the window of step 9.
    assert {step: float(rate) for step, rate in logged.items() if rate} == {2: 8, 5: 8, 8: 8, 11: 8}
    assert trainer.progress_bar_metrics["train/samples_per_second"] == 8


def test_accumulated_batches_all_count(run: Any, clock: _Clock) -> None:
    trainer = run.trainer(clock, SamplesPerSecond(), accumulate_grad_batches=2)
    trainer.fit(run.Module(), datamodule=run.Data(train_batches=8))
    assert trainer.callback_metrics["train/samples_per_second"] == 8
