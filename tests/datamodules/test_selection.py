"""A selection takes effect in the next epoch, whatever module asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from untrigger.contracts import Preprocessing
from untrigger.datamodules import ImageTextDataModule


class Selecting(LightningModule):
    """Streams fewer pairs from the second epoch on, all of them again in the fourth."""

    defence = "none"

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[set[str]] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append(set())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.seen[-1] |= set(batch["key"])
        return self.weight**2

    def on_train_epoch_end(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if len(self.seen) == 1:
            data.select(sorted(self.seen[0])[:4])
        elif len(self.seen) == 3:
            data.select(None)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
@pytest.mark.parametrize("reload", [0, 3])
def test_a_selection_holds_from_the_next_epoch_on(
    tmp_path: Path, write_pairs: Any, preprocessing: Preprocessing, reload: int
) -> None:
    module, data = Selecting(preprocessing), ImageTextDataModule(write_pairs([8]), batch_size=2, num_workers=0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        logger=False,
        log_every_n_steps=1,
        reload_dataloaders_every_n_epochs=reload,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, data)
    assert [len(keys) for keys in module.seen] == [8, 4, 4, 8]
    assert module.seen[1] == module.seen[2] < module.seen[0] == module.seen[3]
    assert trainer.global_step == 4 + 2 + 2 + 4
