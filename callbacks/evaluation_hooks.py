"""What validation and testing have in common for a callback: one evaluation, in either."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..contracts import ZeroShotBatch, ZeroShotOutputs


class EvaluationHooks(Callback, ABC):
    """Sees every batch of an evaluation, of ``validate`` and ``test`` alike. The sanity check is left out."""

    @abstractmethod
    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset what is kept: an evaluation starts."""

    @abstractmethod
    def see(self, batch: ZeroShotBatch, outputs: ZeroShotOutputs) -> None:
        """Take what there is to take from a batch, without waiting for the device."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in the outputs of a batch."""
        if not trainer.sanity_checking:
            self.see(batch, outputs)

    # The same, since a test is never a sanity check.
    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
