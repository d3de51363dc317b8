"""ABL's trap on a fresh copy of a model, with the loss of every pair, to find what is learnt first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts import ImageTextBatch
from .encoders import build_encoder
from .losses import PairLosses
from .losses.gather import mean_over_ranks
from .optimisation import warmup_cosine
from .phased import Phase, PhasedCLIPModule
from .phased.scores import PassScores, Scores


class Isolate(Phase[PhasedCLIPModule]):
    """Trains a copy with a trap, and notes the loss of every pair in every epoch: see ``ABL``.

    Args:
        epochs: How many.
        lr: After the module's ``warmup_steps``.
        gamma: Where the trap is, as a share of the chance level.
        seed: Seed of the copy's first weights.
        conclude: What is made of the keys and losses, each pair as often as it was seen; gives the next phase.
    """

    learning = ("image", "rest")
    train_mode = True
    measured = "trapped"

    def __init__(
        self, epochs: int, lr: float, gamma: float, seed: int, conclude: Callable[[list[str], Scores], str | None]
    ) -> None:
        super().__init__("isolate", epochs, lr)
        self.gamma, self.seed, self.conclude, self.pair_losses = gamma, seed, conclude, PairLosses()
        self._passes: dict[int, PassScores] = {}
        self._epoch = 0

    def begin(self, module: PhasedCLIPModule) -> None:
        """Start from the weights that the encoder's name stands for, random ones drawn from ``seed``."""
        self._passes = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module.encoder.load_state_dict(build_encoder(module.hparams["encoder"]).state_dict())

    def select(self, module: PhasedCLIPModule, epoch: int) -> None:
        """Everything."""
        module.data.select(None)
        self._epoch = epoch

    def repeat(self, module: PhasedCLIPModule) -> None:
        """Forget what was seen in this epoch."""
        self._passes.pop(self._epoch, None)

    def learning_rate(self, module: PhasedCLIPModule, step: int) -> float:
        """A warm-up, then constant."""
        return self.lr * warmup_cosine(step, module.warmup_steps, None)

    def step(self, module: PhasedCLIPModule, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The trapped loss of a batch."""
        losses: Tensor = self.pair_losses(*module(batch), module.inverse_temperature)
        self._passes.setdefault(self._epoch, PassScores()).add(batch["key"], {"loss": losses})
        module.log_parts(pair_loss=losses.mean())
        trapped = losses < self.gamma * chance_level(module)
        return mean_over_ranks(torch.where(trapped, -losses, losses).mean())

    def end(self, module: PhasedCLIPModule) -> str | None:
        """Conclude from the losses of all epochs and ranks."""
        gathered = [scores.gather() for scores in self._passes.values()]
        self._passes = {}
        losses = np.concatenate([values["loss"] for _, values in gathered])
        return self.conclude([key for keys, _ in gathered for key in keys], losses)

    def state_dict(self) -> dict[str, Any]:
        """The losses so far, of all ranks."""
        return {"passes": {epoch: scores.state_dict() for epoch, scores in self._passes.items()}}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with this rank's."""
        self._passes = {}
        for epoch, state in state_dict["passes"].items():
            self._passes[epoch] = PassScores()
            self._passes[epoch].load_state_dict(state, rank)


def chance_level(module: PhasedCLIPModule) -> float:
    """The contrastive loss of a pair in a batch of which nothing is known."""
    return math.log(module.data.global_batch_size)


def mean_by_key(keys: Sequence[str], losses: Scores) -> tuple[list[str], Scores]:
    """The mean of what was seen of each pair.

    Args:
        keys: Keys of pairs, each as often as it was seen.
        losses: As many.

    Returns:
        N keys, each once and in order, and ``(N,)``.
    """
    once, index = np.unique(keys, return_inverse=True)
    sums, counts = np.bincount(index, losses), np.bincount(index)
    return once.tolist(), (sums / counts).astype(np.float32)
