"""Training throughput, in pairs per second."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class SamplesPerSecond(Callback):
    """Logs the pairs that all ranks together train on per second.

    The window is the time since the last log, every ``trainer.log_every_n_steps`` steps, waiting for data included. A
    window also starts after the first batch of a run and after the first batch after a validation: neither start-up
    nor validation counts.

    Lightning's ``ThroughputMonitor`` waits for the device at every step, warns unless the module counts its FLOPs, and
    does not reach the progress bar.

    Logs:
        ``train/samples_per_second``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._start: float | None = None
        self._step = 0
        self._samples = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the window."""
        self._start = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the window that the validation interrupts."""
        self._start = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; close the window when it is time to log."""
        now, step = perf_counter(), trainer.global_step
        if self._start is None:
            self._open(now, step)
            return
        self._samples += len(batch["key"]) * trainer.world_size
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # a connector sets it
        # With accumulated gradients, several batches share a step.
        if not every or step == self._step or step % every:
            return
        rate = self._samples / max(now - self._start, 1e-9)
        pl_module.log("train/samples_per_second", rate, on_step=True, on_epoch=False, prog_bar=True, batch_size=1)
        self._open(now, step)

    def _open(self, now: float, step: int) -> None:
        self._start, self._step, self._samples = now, step, 0
