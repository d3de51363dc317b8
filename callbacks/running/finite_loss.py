"""Ends a run whose loss is not finite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...contracts import LossesModule, UserMistake
from ...files.writing import write_text

_SHOWN = 5


class _Step(NamedTuple):
    number: int
    losses: Mapping[str, Tensor]
    keys: Sequence[str]


class FiniteLoss(Callback):
    """Ends a run at the first step whose loss is NaN or infinite, and names the step, the losses and the batch.

    The losses stay on the device and are looked at together, every ``trainer.log_every_n_steps`` batches, and before a
    checkpoint is written: a checkpoint never holds what such a step, or a gradient that was not finite, has left.
    ``not_finite.json`` in the run folder has all keys of the batch (``not_finite-RANK.json`` where it is not the first
    rank's).
    """

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step; look, when it is time to.

        Raises:
            UserMistake: If a loss is not finite.
        """
        if isinstance(pl_module, LossesModule) and pl_module.losses:
            losses = pl_module.losses
            if not self._steps or losses is not self._steps[-1].losses:
                # As the loggers count: the first step is 0.
                self._steps.append(_Step(trainer.global_step - 1, losses, batch["key"]))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # a connector sets it
        if (batch_idx + 1) % max(every, 1) == 0 or trainer.is_last_batch:
            self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at what has not been looked at, and at the weights.

        Raises:
            UserMistake: If a loss or a weight is not finite.
        """
        self._look(trainer)
        named = list(pl_module.named_parameters())
        finite = torch.stack([parameter.detach().isfinite().all() for _, parameter in named]).tolist()
        broken = next((name for (name, _), fine in zip(named, finite, strict=True) if not fine), None)
        if broken is not None:
            raise UserMistake(
                f"the weights are not finite after step {trainer.global_step - 1} ({broken}), though the loss was: no "
                "checkpoint is written, the one before is good; a lower model.lr or another precision may help"
            )

    def _look(self, trainer: Trainer) -> None:
        # The last step stays, so that it is known again where a step without a loss follows.
        steps, self._steps = self._steps, self._steps[-1:]
        finite = torch.stack([step.losses["loss"] for step in steps]).isfinite().tolist() if steps else []
        first = next((step for step, fine in zip(steps, finite, strict=True) if not fine), None)
        if not trainer.strategy.reduce_boolean_decision(first is not None, all=False):
            return
        if first is None:
            raise UserMistake("the loss of another rank is not finite")
        losses = {name: float(value) for name, value in first.losses.items()}
        name = f"not_finite-{trainer.global_rank}.json" if trainer.global_rank else "not_finite.json"
        path = Path(trainer.default_root_dir, name)
        report = {"step": first.number, "losses": {part: str(value) for part, value in losses.items()}}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(report | {"keys": list(first.keys)}, indent=1) + "\n")
        parts = ", ".join(f"{part} {value:g}" for part, value in losses.items())
        # Keys are hostile text: repr keeps escape codes out of a terminal.
        keys = ", ".join(repr(key[:80]) for key in first.keys[:_SHOWN])
        more = f" and {len(first.keys) - _SHOWN} more, all in {path}" if len(first.keys) > _SHOWN else ""
        raise UserMistake(
            f"the loss is not finite from step {first.number} on ({parts}; batch of {keys}{more}); the last checkpoint "
            "is from before it; a lower model.lr or another precision may help"
        )
