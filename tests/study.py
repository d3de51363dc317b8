"""What a user of the command might bring along: a module and a callback, named by their paths in a config."""

from __future__ import annotations

import json
import multiprocessing
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
        batch["image"] = batch["image"] + noise
        return super().training_step(batch, batch_idx)


class Diary(Callback):
    """Writes down what each step was given, and lets something happen after some of them, before their checkpoint.

    Args:
        file: Where, with the rank behind its name.
        after: Batches after which it happens; never with 0.
        event: ``kill`` this process, ``interrupt`` its process group as Ctrl-C does, or kill a data ``worker``.
        seconds: How long each step takes at least.
    """

    def __init__(self, file: str, after: int = 0, event: str = "kill", seconds: float = 0.0) -> None:
        self.file, self.left, self.event, self.seconds = file, after, event, seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with Path(f"{self.file}.{trainer.global_rank}").open("a") as stream:
            print(json.dumps([trainer.current_epoch, batch_idx, batch["key"]]), file=stream)
        self.left -= 1
        if not self.left:
            self._happen()
        time.sleep(self.seconds)

    def _happen(self) -> None:
        if self.event == "interrupt":
            os.killpg(0, signal.SIGINT)
        elif self.event == "worker":
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid or 0, signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
