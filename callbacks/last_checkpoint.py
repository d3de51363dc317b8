"""The checkpoint from which a run goes on."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, and ``last.ckpt`` also at the end of an epoch that took no step.

    ``ModelCheckpoint`` leaves such an epoch out, as its weights are those of the one before. What a scoring phase has
    found would be lost with it.
    """

    _step_before = -1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step."""
        self._step_before = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, whether or not there was a step."""
        super().on_train_epoch_end(trainer, pl_module)
        rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        if self.save_last and self.dirpath and not rehearsal and trainer.global_step == self._step_before:
            path = str(Path(self.dirpath, f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"))
            trainer.save_checkpoint(path, self.save_weights_only)
            self.last_model_path = path
