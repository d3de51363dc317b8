"""The checkpoint from which a run goes on."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, and ``last.ckpt`` at the end of every epoch.

    ``ModelCheckpoint`` writes ``last.ckpt`` only beside another one, so without the best ones (``save_top_k=0``) not
    before the end of the run; and it leaves out an epoch that took no step, as its weights are those of the one before:
    what a scoring phase has found would be lost with it.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, whether or not there was a step."""
        super().on_train_epoch_end(trainer, pl_module)
        rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        if self.save_last and self.dirpath and not rehearsal:
            path = str(Path(self.dirpath, f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"))
            trainer.save_checkpoint(path, self.save_weights_only)
            self.last_model_path = path
