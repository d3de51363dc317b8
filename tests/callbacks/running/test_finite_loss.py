from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from untrigger.callbacks import FiniteLoss, LastCheckpoint
from untrigger.contracts import UserMistake


class Breaking(LightningModule):
    """Its loss, or only its gradient, is no number any more in one of its steps."""

    def __init__(self, loss_at: int = -1, gradient_at: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.loss_at, self.gradient_at = loss_at, gradient_at
        self.losses: dict[str, Tensor] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = (self.weight * batch["value"]).mean()
        if batch_idx == self.loss_at:
            loss = loss + torch.inf
        self.losses = {"loss": loss.detach(), "part": loss.detach() / 2}
        return loss

    def on_after_backward(self) -> None:
        if self.trainer.global_step == self.gradient_at and self.weight.grad is not None:
            self.weight.grad.fill_(torch.nan)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: LightningModule, folder: Path, every: int) -> None:
    samples = [{"key": f"k{number}", "value": torch.tensor([float(number)])} for number in range(24)]
    checkpoint = LastCheckpoint(dirpath=str(folder), save_last=True, save_top_k=0, every_n_train_steps=every)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[FiniteLoss(), checkpoint],
        log_every_n_steps=100,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(samples, batch_size=2))  # type: ignore[arg-type]  # a list is a data set


pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


def test_a_run_ends_at_the_first_loss_that_is_no_number_and_keeps_its_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="not finite from step 4 on") as mistake:
        fit(Breaking(loss_at=4), tmp_path, every=3)
    assert "loss inf, part inf; batch of 'k8', 'k9'" in str(mistake.value)
    assert json.loads((tmp_path / "not_finite.json").read_text()) == {
        "step": 4,
        "losses": {"loss": "inf", "part": "inf"},
        "keys": ["k8", "k9"],
    }
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3
    assert kept["state_dict"]["weight"].isfinite()


def test_a_gradient_that_is_no_number_is_seen_before_the_weights_are_saved(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"the weights are not finite after step 5 \(weight\)"):
        fit(Breaking(gradient_at=5), tmp_path, every=3)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_a_run_without_trouble_is_left_alone(tmp_path: Path) -> None:
    fit(Breaking(), tmp_path, every=3)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 12
    assert not (tmp_path / "not_finite.json").exists()
