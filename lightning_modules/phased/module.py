"""The base class of defences in phases: it selects pairs, steps the current phase, and resumes in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import AdamW

from ...contracts import ImageTextBatch, ImageTextData, ResumedLoader, UserMistake
from ...trainer.lookup import data_of
from ..base import BaseCLIPModule
from ..optimisation import adamw
from .check_run import check_run
from .phase import Phase
from .progress import Clock, Progress
from .towers import TOWERS, tower_groups

Value = TypeVar("Value")
_NEVER = 1 << 30


class PhasedCLIPModule(BaseCLIPModule):
    """A CLIP module whose run has phases. A subclass gives the table of them, and keeps what they find.

    Each phase (``Phase``) says which pairs it streams, what it learns, when it is over and which one comes next.
    Everything else stands here: a run that is killed in any phase, in the middle of an epoch or at its end, is resumed
    to the same bits, and a phase may be entered several times.

    A complete defence of two phases is on the page "A defence in phases" (``docs/extending/phases.md``).

    A run needs ``trainer.max_epochs=-1`` and ``trainer.reload_dataloaders_every_n_epochs=1``, and a data module that is
    ``ImageTextData``. Evaluations come at the end of the phases that ask for one, whatever
    ``check_val_every_n_epoch``.

    Logs, after the ``prefix``: ``PREFIX/phase``, the running phase's index in the table, from 0;
    ``PREFIX/seconds/PHASE`` at the end of each visit of a phase, without evaluations. ``train/loss`` and its parts
    where something is learnt.

    Args:
        args: See ``BaseCLIPModule``.
        kwargs: See ``BaseCLIPModule``. ``lr`` and ``warmup_steps`` are for the phases to use: each has its own rate.
    """

    phases: dict[str, Phase[Any]]
    """The phases by name, in the order in which they are documented: see ``phase_table``. The first starts the run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.phases = {}
        self.initial: dict[str, Tensor] = {}
        """The weights that the run began with, a state dict of the encoder on the CPU; empty before it begins."""
        self.restored = False
        """See ``PhasedModule``."""
        self._progress, self._clock = Progress(), Clock()
        self._parts: dict[str, Tensor] = {}
        self._evaluates_every: int | None = 1
        self._resumed_after_an_epoch = False

    # What a subclass says

    @property
    def prefix(self) -> str:
        """What stands before the logged keys: the name of the class, in lower case."""
        return type(self).__name__.lower()

    def concluded(self) -> None:
        """Do what is due when the run is over, before the checkpoint of its end: no phase runs any more."""

    def account(self) -> str:
        """What is known by now, for the line on the console at the end of a phase; empty for nothing."""
        return ""

    # What callbacks ask

    @property
    def phase(self) -> str:
        """The phase, and its epoch where there may be several; ``done`` when the run is over."""
        if self._progress.done:
            return "done"
        phase = self.running or next(iter(self.phases.values()))
        return f"{phase.name} {self._progress.epoch + 1}/{phase.epochs}" if phase.epochs > 1 else phase.name

    @property
    def measured(self) -> str:
        """What the weights are, by the phase that runs: see ``Phase.measured``."""
        return "" if self.running is None else self.running.measured

    # What phases ask

    @property
    def running(self) -> Phase[Any] | None:
        """The phase that runs; None before the run starts and when it is over."""
        return self.phases[self._progress.phase] if self._progress.phase else None

    @property
    def visit(self) -> int:
        """How often the phase that runs was entered before; 0 in its first visit."""
        return max(self._progress.visits.get(self._progress.phase, 0) - 1, 0)

    @property
    def data(self) -> ImageTextData:
        """The data module of the run."""
        data = data_of(self.trainer, ImageTextData)
        assert data is not None, "the run was looked at before it started"
        return data

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model answers as in an evaluation, in the run's precision and without gradients."""
        training = self.encoder.training
        self.encoder.eval()
        try:
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                yield
        finally:
            self.encoder.train(training)

    def agreed(self, value: Value) -> Value:
        """What the first rank says, on all of them."""
        said: Value = self.trainer.strategy.broadcast(value)
        return said

    def log_parts(self, **parts: Tensor) -> None:
        """Log parts of the loss that the step is about to return as ``train/<part>``."""
        self._parts = parts

    def log_now(self, key: str, value: float) -> None:
        """Log a number between two epochs, where ``log`` is not to be had: in ``Phase.end`` and ``concluded``."""
        for logger in self.trainer.loggers:
            logger.log_metrics({key: value}, self.trainer.global_step)

    def restore(self) -> None:
        """Bring the weights back that the run began with."""
        self.encoder.load_state_dict(self.initial)
        self.restored = True

    # The run

    def configure_optimizers(self) -> AdamW:
        """AdamW over both towers, each with a learning rate of its own: zero where it does not learn."""
        return adamw(tower_groups(self.encoder, self.weight_decay), 0.0, self.betas, self.eps)

    def on_fit_start(self) -> None:
        """Look at the trainer and the data, enter the first phase, and select what the first epoch streams."""
        super().on_fit_start()
        check_run(self.trainer, type(self).__name__)
        self._evaluates_every = self.trainer.check_val_every_n_epoch
        if self._progress.done:
            self.trainer.should_stop = True
            return
        self._clock.start()
        if not self.phases:
            raise NotImplementedError(f"{type(self).__name__} has no phases: set them in its constructor")
        if self.running is None:
            self.initial = {name: tensor.detach().cpu().clone() for name, tensor in self.encoder.state_dict().items()}
            self._enter(next(iter(self.phases)))
        if self._progress.epoch_is_over:  # a checkpoint from after the last batch: Lightning starts the next epoch
            self._advance()
            self._resumed_after_an_epoch = True
        elif self.running is not None:
            self.running.select(self, self._progress.epoch)
        self._evaluate_next(False)

    def on_train_start(self) -> None:
        """Make what the phase needs, at the start or after a restart."""
        if self._progress.entered_now and self.running is not None:  # again: its state was restored meanwhile
            self._reset_optimizer(self.running)
        if self._resumed_after_an_epoch:
            # Lightning infers from the number of batches of the next epoch whether the one before had its last.
            self._resumed_after_an_epoch = False
            self.trainer.fit_loop.epoch_loop.batch_progress.current.completed = _NEVER
        if self.running is None:
            return
        self.running.prepare(self)
        loader = self.trainer.train_dataloader
        if isinstance(loader, ResumedLoader) and loader.redivided == 0:
            self.running.repeat(self)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """A step of the phase."""
        phase, progress = self.running, self._progress
        assert phase is not None, "a run that is over has no step"
        self.encoder.train(phase.train_mode)
        loss = phase.step(self, batch, batch_idx)
        self.log(f"{self.prefix}/phase", float(list(self.phases).index(phase.name)), batch_size=1)
        if loss is not None:
            self._learn(phase, loss, len(batch["key"]))
        progress.entered_now = False
        if self.trainer.is_last_batch:
            over = self.agreed(phase.over(self, progress.epoch))
            progress.epoch_is_over, progress.phase_is_over = True, over or progress.epoch + 1 >= phase.epochs
            self._evaluate_next(progress.phase_is_over and phase.evaluated)

    def on_train_epoch_end(self) -> None:
        """Move on to the next epoch, or draw the conclusions of the phase and enter the next one."""
        if not self._progress.epoch_is_over:  # a checkpoint of this very moment was loaded
            return
        self._advance()
        if self.running is not None and self._progress.entered_now:
            self.running.prepare(self)

    def on_fit_end(self) -> None:
        """Give the trainer its evaluations back.

        Raises:
            RuntimeError: If the run ended because a phase had selected nothing.
        """
        self.trainer.check_val_every_n_epoch = self._evaluates_every
        if self.running is not None and self.trainer.num_training_batches == 0 and self.trainer.limit_train_batches:
            raise RuntimeError(f"the phase {self.running.name!r} of {type(self).__name__} has selected no batch")
        rehearsal: bool = self.trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        if self.running is not None and not rehearsal:  # ended as by trainer.max_time
            rank_zero_warn(
                f"{type(self).__name__} was ended in its phase {self.running.name!r}, before it was over: nothing is "
                "settled yet; --ckpt_path last resumes it"
            )

    def on_validation_start(self) -> None:
        """Stop the clock of the phase: measuring is no part of it."""
        self._clock.stop()

    def on_validation_end(self) -> None:
        """Start it again."""
        if self.running is not None:
            self._clock.start()
        self.restored = self.restored and bool(self.measured)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a restart needs beside the weights of the encoder, which may be a copy's."""
        done = self._progress.done
        checkpoint["phased"] = {
            "progress": self._progress.state_dict(),
            "seconds": self._clock.seconds,
            "initial": {} if done else self.initial,
            "phases": {} if done else {name: phase.state_dict() for name, phase in self.phases.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume there.

        Raises:
            UserMistake: If the checkpoint is not of such a run, or of one with other phases.
        """
        state = checkpoint.get("phased")
        if state is None:
            raise UserMistake(
                f"this checkpoint is of no run of {type(self).__name__}'s: to start from its weights, give it as "
                "model.init_from"
            )
        progress = Progress.of_state(state["progress"])
        if missing := {progress.phase, *state["phases"]} - {"", *self.phases}:
            raise UserMistake(
                f"this run was begun with other phases ({', '.join(sorted(missing))} beside {', '.join(self.phases)}): "
                "give the options of the model as they were, or begin it again"
            )
        self._progress, self._clock = progress, Clock(state["seconds"])
        self.initial = dict(state["initial"])
        for name, of_phase in state["phases"].items():
            self.phases[name].load_state_dict(of_phase, self.global_rank)

    def _enter(self, name: str) -> None:
        self._progress.enter(name)
        self.phases[name].begin(self)
        self._reset_optimizer(self.phases[name])

    def _advance(self) -> None:
        """After the last batch of an epoch: move on to the next one, of this phase or of its successor."""
        progress = self._progress
        progress.epoch_is_over = False
        self._evaluate_next(False)
        progress.epoch += 1
        if progress.phase_is_over:
            progress.phase_is_over = False
            self._end_phase()
        if self.running is not None:
            self.running.select(self, progress.epoch)

    def _end_phase(self) -> None:
        phase = self.phases[self._progress.phase]
        successor = self.agreed(phase.end(self))
        if successor is not None and successor not in self.phases:
            raise ValueError(f"phase {phase.name!r} names {successor!r} as its successor: none of {list(self.phases)}")
        self.log_now(f"{self.prefix}/seconds/{phase.name.replace(' ', '_')}", self._clock.seconds)
        report = f"{type(self).__name__} {phase.name}: {self._clock.seconds:.1f} s. {self.account()}"
        rank_zero_info(report.rstrip())
        self._clock = Clock()
        if successor is None:
            self._progress.leave()
            self.concluded()
            self.trainer.should_stop = True
        else:
            self._clock.start()
            self._enter(successor)

    def _learn(self, phase: Phase[Any], loss: Tensor, pairs: int) -> None:
        if not phase.learning:
            raise RuntimeError(
                f"the phase {phase.name!r} of {type(self).__name__} gives a loss, and nothing learns from it: name the "
                f"towers in its `learning`, of {', '.join(TOWERS)}"
            )
        self.log_losses(loss, pairs, **self._parts)
        self._parts = {}
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list), "there is one"
        rate = phase.learning_rate(self, self._progress.step)
        for group in optimizer.param_groups:
            group["lr"] = rate if group["tower"] in phase.learning else 0.0
        optimizer.zero_grad()
        self.manual_backward(loss + self._untouched() if self.trainer.world_size > 1 else loss)
        optimizer.step()
        self.constrain()
        self._progress.step += 1

    def _reset_optimizer(self, phase: Phase[Any]) -> None:
        if phase.keeps_optimiser:
            return
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()

    def _untouched(self) -> Tensor:
        """Zero, with a gradient for every parameter: ranks wait for the gradients of a tower that does not learn."""
        return 0 * torch.stack([part.sum() for part in self.encoder.parameters() if part.requires_grad]).sum()

    def _evaluate_next(self, now: bool) -> None:
        """Whether Lightning evaluates after the current batch."""
        self.trainer.check_val_every_n_epoch = 1 if now else _NEVER
