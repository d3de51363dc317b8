"""The checkpoint from which a run resumes."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from ...contracts import ResumedLoader, UserMistake
from .cut_short import ends_here, is_cut_short, reopen_epoch
from .stop_signals import StopSignals


class LastCheckpoint(ModelCheckpoint):
    """Lightning's checkpoints, and ``last.ckpt``, from which a run resumes with the next batch.

    It is written at the end of every epoch, in between after some minutes, and when the run is asked to end by Ctrl-C,
    SIGTERM or, before the time limit of a job, SLURM. The loader's position in the epoch and, beside `RandomStates`,
    the random generators go with it, so that a run that was killed ends with the weights of one that was not.

    ``ModelCheckpoint`` writes ``last.ckpt`` only beside another one, so without the best ones (``save_top_k=0``) not
    before the end of the run; and it leaves out an epoch that took no step, as its weights are those of the one before:
    what a scoring phase has found would be lost with it.

    Where ``max_steps``, ``max_time`` or another callback ends the run inside an epoch, every checkpoint resumes in that
    epoch: Lightning's own would start the next one. ``last.ckpt`` is written before anything is measured then, and the
    run ends after a step of the optimiser, with no gradients left over.

    Several ranks look at clock and signals together, every ``trainer.log_every_n_steps`` batches, and a validation is
    not interrupted: the signal that announces a time limit has to come that early.

    Args:
        minutes: Time after which it is written in the middle of an epoch.
    """

    def __init__(self, *args: Any, minutes: float = 10.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.minutes = minutes
        self._signals = StopSignals()
        self._written = monotonic()
        self._stop = 0
        self._written_at = -1
        self._ends = False
        self._loader_states: list[dict[str, Any]] = []
        self._restored: tuple[int, int] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep where the loader stood."""
        self._loader_states = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        self._restored = len(checkpoint["optimizer_states"]), len(checkpoint["lr_schedulers"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Install the signal handlers: until training starts, they end the run at once."""
        super().setup(trainer, pl_module, stage)
        self._signals.install(patient=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers again, and start the clock."""
        super().on_train_start(trainer, pl_module)
        self._check_restored(trainer)
        self._signals.install(patient=self._writes(trainer))
        self._written, self._stop, self._written_at, self._ends = monotonic(), 0, -1, False
        states, self._loader_states = self._loader_states, []
        loader = trainer.train_dataloader
        if states and isinstance(loader, ResumedLoader):
            # Lightning forgets to, where the number of steps was asked for before it has read the checkpoint.
            loader.load_state_dict(states[0])
            if loader.redivided is not None:
                _count_batches_from(loader.redivided, trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End the run, if it was asked to and the checkpoint is written; the loggers have the last step by now."""
        if self._stop:
            self._signals.leave(self._stop)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to, between two steps of the optimiser."""
        if pl_module.automatic_optimization:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # The end of an epoch is near, and has its own; gradients that are being accumulated are in no checkpoint.
        if self._postpones(trainer) or trainer.is_last_batch:
            return
        reason = self._reason(trainer, batch_idx)
        if reason and self._writes(trainer):
            self._write(trainer)
            self._stop = reason if reason > 1 else 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning does; what has been measured may have asked the run to end."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING:
            self._postpones(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, whether or not there was a step, unless the run ends inside the epoch and that was done."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._writes(trainer):
            if not (is_cut_short(trainer) and self._written_at == trainer.fit_loop.total_batch_idx):
                self._write(trainer)
            self._stop = self._agreed(trainer, self._signals.received)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let any checkpoint of an epoch that was cut short resume in it."""
        if is_cut_short(trainer):
            reopen_epoch(checkpoint, stepped=not trainer.fit_loop._should_accumulate())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is nothing to wait for any more. The last epoch's checkpoint is the run's: no other is written."""
        self._signals.patient = False

    def _check_restored(self, trainer: Trainer) -> None:
        """Check that no optimiser or schedule starts from scratch: Lightning restores only what the checkpoint has."""
        restored, self._restored = self._restored, None
        own = len(trainer.optimizers), len(trainer.lr_scheduler_configs)
        for what, there, needed in zip(("optimisers", "learning rate schedulers"), restored or own, own, strict=True):
            if there < needed:
                raise UserMistake(
                    f"the checkpoint has the states of {there} {what} and the run {needed}: it cannot resume; "
                    "the checkpoint's weights alone go to --model.init_from"
                )

    def _writes(self, trainer: Trainer) -> bool:
        rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        return bool(self.save_last and self.dirpath) and not rehearsal

    def _postpones(self, trainer: Trainer) -> bool:
        """Whether gradients are being accumulated; the run is not to end before the step with them."""
        steps = trainer.is_last_batch or (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not steps:
            self._ends, trainer.should_stop = self._ends or trainer.should_stop, False
        elif self._ends:
            self._ends, trainer.should_stop = False, True
        return not steps

    def _reason(self, trainer: Trainer, batch_idx: int) -> int:
        """Why to save after this batch: 0 for no reason, 1 for the time or as the run ends here, or a signal."""
        if ends_here(trainer):
            return 1
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # a connector sets it
        if trainer.world_size > 1 and (batch_idx + 1) % max(every, 1):
            return 0
        is_late = monotonic() - self._written >= 60 * self.minutes
        return self._agreed(trainer, self._signals.received or int(is_late))

    def _write(self, trainer: Trainer) -> None:
        path = str(Path(str(self.dirpath), f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"))
        trainer.save_checkpoint(path, self.save_weights_only)
        self.last_model_path, self._written = path, monotonic()
        self._written_at = trainer.fit_loop.total_batch_idx

    def _agreed(self, trainer: Trainer, reason: int) -> int:
        """The largest of what the ranks say: 0 for nothing, 1 for the time, or a signal."""
        if trainer.world_size == 1:
            return reason
        said = torch.tensor(reason, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(said, reduce_op="max"))


def _count_batches_from(batches: int, trainer: Trainer) -> None:
    """Let the trainer's counter follow a loader whose epoch is divided otherwise than in the checkpoint."""
    loop = trainer.fit_loop.epoch_loop
    counter: Any = loop.batch_progress.current
    counter.ready = counter.started = counter.processed = batches
    # A checkpoint from the end of a batch has it not yet completed: the loop adds it when it starts.
    counter.completed = batches - int(loop.restarted_on_train_batch_end)
