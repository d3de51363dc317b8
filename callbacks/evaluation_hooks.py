"""A base class for callbacks that treat ``validate`` and ``test`` alike: one pass over the zero-shot set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..contracts import ZeroShotBatch, ZeroShotOutputs


class EvaluationHooks(Callback, ABC):
    """Hands every batch of an evaluation to `see`, in ``validate`` and ``test`` alike, but not in the sanity check."""

    @abstractmethod
    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the state, at the start of an evaluation."""

    @abstractmethod
    def see(self, batch: ZeroShotBatch, outputs: ZeroShotOutputs) -> None:
        """Update the state from a batch and its outputs, without a synchronisation with the device."""

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
