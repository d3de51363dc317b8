"""What a user of the command might bring along: a module and a callback, named by their paths in a config."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from untrigger.lightning_modules import PoisonedCLIP


class Noisy(PoisonedCLIP):
    """Draws from every generator in a step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        noise = torch.randn_like(batch["image"]) * random.random() * np.random.rand()
        return super().training_step({**batch, "image": batch["image"] + noise}, batch_idx)


class Diary(Callback):
    """Writes down what each step was given.

    Args:
        file: Where, with the rank behind its name.
        kill_after: Batches after which it kills its process, before their checkpoint; never with 0.
        seconds: How long it makes each step, at least.
    """

    def __init__(self, file: str, kill_after: int = 0, seconds: float = 0.0) -> None:
        self.file, self.left, self.seconds = file, kill_after, seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with Path(f"{self.file}.{trainer.global_rank}").open("a") as stream:
            print(json.dumps([trainer.current_epoch, batch_idx, batch["key"]]), file=stream)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
