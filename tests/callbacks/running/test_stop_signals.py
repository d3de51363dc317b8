from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from untrigger.callbacks import LastCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


class Counting(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Asked(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def fit(folder: Path, number: int, step: int = 4, **arguments: Any) -> int:
    """Train for two epochs of six batches; the step that the checkpoint is of."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        callbacks=[Asked(number, step), LastCheckpoint(dirpath=str(folder), save_last=True, save_top_k=0)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **arguments,
    )
    trainer.fit(Counting(), DataLoader(torch.ones(6, 1)))  # type: ignore[arg-type]  # a tensor is a data set
    return trainer.global_step


def saved(folder: Path) -> int:
    return int(torch.load(folder / "last.ckpt", weights_only=True)["global_step"])


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM's; the file has what ``scontrol`` was called with."""
    script = tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\ntest "$2" != 13\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return tmp_path / "said"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [2, 5])
def test_the_step_is_finished_and_saved_before_the_run_ends(number: signal.Signals, step: int, tmp_path: Path) -> None:
    before = [signal.getsignal(wanted) for wanted in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, number, step)
    assert stop.value.code == 128 + number
    assert saved(tmp_path) == step + 1
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def test_gradients_that_are_being_accumulated_are_stepped_with_first(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, signal.SIGINT, 1, accumulate_grad_batches=2)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"] == 4


def test_a_job_before_its_time_limit_goes_back_into_the_queue(scontrol: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, signal.SIGUSR1)
    assert stop.value.code == 0
    assert saved(tmp_path) == 5
    assert scontrol.read_text() == "requeue 7\n"


def test_a_task_of_an_array_is_requeued_alone_and_a_refusal_is_reported(
    scontrol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    with pytest.raises(SystemExit):
        fit(tmp_path / "array", signal.SIGUSR1)
    assert scontrol.read_text() == "requeue 5_1\n"
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "refused", signal.SIGUSR1)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert "job 13 is not requeued" in caplog.text
    assert saved(tmp_path / "refused") == 5


def test_a_signal_in_the_last_step_of_a_run_is_no_reason_to_stop_it(tmp_path: Path) -> None:
    assert fit(tmp_path, signal.SIGTERM, step=11) == 12
    assert saved(tmp_path) == 12


@pytest.mark.parametrize("minutes", [0.0, 60.0])
def test_in_the_middle_of_an_epoch_it_is_saved_when_it_is_time_to(minutes: float, tmp_path: Path) -> None:
    steps = []

    class Note(Callback):
        def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
            steps.append(trainer.global_step)

    checkpoint = LastCheckpoint(dirpath=str(tmp_path), save_last=True, save_top_k=0, minutes=minutes)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[checkpoint, Note()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Counting(), DataLoader(torch.ones(4, 1)))  # type: ignore[arg-type]  # a tensor is a data set
    assert steps == ([1, 2, 3, 4] if not minutes else [4])
