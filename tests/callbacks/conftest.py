"""A run whose every prediction is written into the pictures, so that each figure can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from untrigger.contracts import Attack, ClassPrompts, Preprocessing, ZeroShotBatch, ZeroShotOutputs

CLASSNAMES = ["plane", "car", "bird"]
LABELS = [0, 0, 1, 1, 2, 2, 2]
CLEAN = [0, 1, 1, 0, 2, 2, 1]
BADNET = Attack("BadNet", 1)
UNDER_BADNET = [1, 1, 1, 0, 1, 2, 0]
SECOND = Attack("BadNet-2", 2)
UNDER_SECOND = [2, 0, 2, 2, 2, 0, 0]

_MEAN, _STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def _tokenize(captions: Sequence[str]) -> Tensor:
    return torch.zeros(len(captions), 4, dtype=torch.int64)


def picture(predicted: int) -> Tensor:
    """A normalised ``(3, 4, 4)`` picture that the module takes for a class: 8-bit pixels of 40 times its index."""
    pixels = torch.full((3, 4, 4), 40 * predicted / 255)
    return (pixels - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


class ReadingModule(LightningModule):
    """Reads the class that a picture says it is to be taken for."""

    defence = "none"
    preprocessing = Preprocessing(4, _MEAN, _STD, _tokenize)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def logits(self, images: Tensor) -> Tensor:
        shade = (images[:, 0, 0, 0] * _STD[0] + _MEAN[0]) * 255 / 40
        return torch.nn.functional.one_hot(shade.round().long(), len(CLASSNAMES)).float()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.weight**2
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: ZeroShotBatch, batch_idx: int) -> ZeroShotOutputs:
        return {
            "label": batch["label"],
            "logits": self.logits(batch["image"]),
            "triggered_logits": {name: self.logits(images) for name, images in batch["triggered"].items()},
        }

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ShowingModule(ReadingModule):
    """Also returns what it saw: features that tell the class it took a picture for, and ten times the cosines."""

    def validation_step(self, batch: ZeroShotBatch, batch_idx: int) -> ZeroShotOutputs:
        outputs = super().validation_step(batch, batch_idx)
        features = outputs["logits"]  # one-hot, of unit length
        triggered = dict(outputs["triggered_logits"])
        return {
            **outputs,
            "logits": 10 * features,
            "triggered_logits": {name: 10 * logits for name, logits in triggered.items()},
            "features": features,
            "triggered_features": triggered,
            "inverse_temperature": torch.tensor(10.0),
        }

    test_step = validation_step


class WrittenData(LightningDataModule):
    """Test batches of three pictures, the last one smaller, shared out over ranks; training batches of four pairs."""

    class_prompts = ClassPrompts(CLASSNAMES, [[f"a {name}"] for name in CLASSNAMES])

    def __init__(
        self, attacks: dict[Attack, list[int]] | None = None, name: str = "written", train_batches: int = 2
    ) -> None:
        super().__init__()
        self.under = {BADNET: UNDER_BADNET} if attacks is None else attacks
        self.dataset_name = name
        self.train_batches = train_batches

    @property
    def attacks(self) -> list[Attack]:
        return list(self.under)

    def _test_batch(self, numbers: list[int]) -> ZeroShotBatch:
        return {
            "key": [str(number) for number in numbers],
            "image": torch.stack([picture(CLEAN[number]) for number in numbers]),
            "label": torch.tensor([LABELS[number] for number in numbers]),
            "triggered": {
                attack.name: torch.stack([picture(predicted[number]) for number in numbers])
                for attack, predicted in self.under.items()
            },
        }

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([{"key": list("abcd")}] * self.train_batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        numbers = list(range(len(LABELS)))[self.trainer.global_rank :: self.trainer.world_size]
        batches = [self._test_batch(numbers[start : start + 3]) for start in range(0, len(numbers), 3)]
        return DataLoader(batches, batch_size=None)

    test_dataloader = val_dataloader


class WrittenRun:
    """Makes trainers for one run folder."""

    Data = WrittenData
    Module = ReadingModule
    ShowingModule = ShowingModule
    badnet, second = {BADNET: UNDER_BADNET}, {SECOND: UNDER_SECOND}

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def trainer(self, *callbacks: Callback, **options: Any) -> Trainer:
        defaults = {
            "accelerator": "cpu",
            "max_epochs": 1,
            "num_sanity_val_steps": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
        }
        return Trainer(default_root_dir=self.folder, callbacks=list(callbacks), **(defaults | options))


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    return WrittenRun(tmp_path / "run")
