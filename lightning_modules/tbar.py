"""TBAR: subtract what a short finetuning on triggered pictures adds to the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..contracts import ImageTextBatch, UserMistake
from ..run_folder.keys import read_poisoned_keys
from ..trainer.seed import run_seed
from .losses.gather import mean_over_ranks
from .phased import Phase, PhasedCLIPModule, among_others, phase_table
from .precision import similarities
from .ranges import check_ranges


class TBAR(PhasedCLIPModule):
    """A poisoned CLIP from which the direction of its own backdoor is subtracted. It needs triggered pairs.

    Trigger removal by task arithmetic (arXiv 2510.14845): a backdoor is a task like another, and has a vector in the
    space of the weights. With ``theta`` the poisoned model's weights,

        tau = finetuned(theta, triggered pairs) - theta,    theta - coefficient * tau

    1. *Finetune*, shortly, on triggered pairs with the captions that the attacker gave them.
    2. *Subtract* the change, ``coefficient`` times.

    Source: the abstract; there is no public code. How to choose the coefficient, the number of steps and the rate is
    not published. Ours:

    - The triggered pairs are those of the training data that ``given`` names: known ones, or what another defence
      suspects (UBT's ``suspects.csv``), so that what it subtracts may be partly wrong.
    - Their captions all say the same, and a contrastive loss among them alone has nothing to learn. So each batch has
      ``others_per_given`` other pairs for a triggered one, of which the captions alone count, as negatives: the loss
      asks each triggered picture for its own caption among those. Were other pictures to find, or to avoid, captions,
      that would be in the task vector too, and subtracting it would undo it.
    - The image tower alone is finetuned, so the text tower stays as it is, and batch norm keeps its statistics.

    Each phase takes epochs of one ``fit``, which needs ``trainer.max_epochs=-1`` and
    ``trainer.reload_dataloaders_every_n_epochs=1``.

    Logs: ``tbar/phase``, ``tbar/seconds/PHASE``, ``train/loss``, and in the end ``tbar/length``, the Euclidean length
    of the task vector.

    Args:
        given: A ``poison.json``, a table with a column ``key`` (of ``suspects.csv`` the poisoned ones count), or a text
            file with a key a line: the triggered pairs.
        coefficient: How many times the task vector is subtracted.
        epochs: How often each triggered pair is seen.
        others_per_given: Other pairs of a batch for a triggered one, at least 1.
        seed: Seed of the draw of the others; the seed of ``seed_everything`` unless given.
        lr: Learning rate of the finetuning, constant. ``warmup_steps`` changes nothing.

    Raises:
        UserMistake: If no pairs are given, or a parameter is out of range.
    """

    def __init__(
        self,
        *args: Any,
        given: str | None = None,
        coefficient: float = 1.0,
        epochs: int = 2,
        others_per_given: int = 3,
        seed: int | None = None,
        lr: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lr=lr, **kwargs)
        check_ranges({"epochs": epochs, "others_per_given": others_per_given}, {"coefficient": coefficient})
        if given is None:
            raise UserMistake(
                "TBAR needs triggered pairs: name them by model.given, a poison.json or the suspects.csv of another "
                "defence"
            )
        self.given = read_poisoned_keys(given, "model.given")
        self.coefficient = coefficient
        self.phases = phase_table(Finetune(epochs, lr, others_per_given, run_seed(seed)), Subtract())
        self.vector_length: float | None = None
        """The Euclidean length of the task vector; None before it was subtracted."""

    def account(self) -> str:
        """How long the task vector is, once it is known."""
        return "" if self.vector_length is None else f"a task vector of length {self.vector_length:.3g} subtracted"

    def subtract(self) -> None:
        """Go from the finetuned weights to the poisoned ones less the task vector."""
        squares, weights = 0.0, self.encoder.state_dict()
        for name, tuned in weights.items():
            before = self.initial[name].to(tuned.device)
            if tuned.is_floating_point():
                vector = tuned - before
                squares += float(vector.double().square().sum())
                weights[name] = before - self.coefficient * vector
        self.encoder.load_state_dict(weights)
        self.vector_length = squares**0.5

    def concluded(self) -> None:
        """Log how long the task vector was."""
        if self.vector_length is not None:
            self.log_now("tbar/length", self.vector_length)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the length of the task vector."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["tbar"] = self.vector_length

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with it."""
        super().on_load_checkpoint(checkpoint)
        self.vector_length = checkpoint["tbar"]


class Finetune(Phase[TBAR]):
    """Teaches the image tower the backdoor once more.

    Args:
        epochs: Passes over all triggered pairs.
        lr: Learning rate, constant.
        others: Other pairs for each triggered one, drawn anew in each epoch.
        seed: Seed with which they are drawn.
    """

    learning = ("image",)
    measured = "finetuned"

    def __init__(self, epochs: int, lr: float, others: int, seed: int) -> None:
        super().__init__("finetune", epochs, lr)
        self.others, self.seed = others, seed

    def select(self, module: TBAR, epoch: int) -> None:
        """The triggered pairs, and some others.

        Raises:
            UserMistake: If none of the triggered pairs is in the data, or they do not fill a batch.
        """
        keys = sorted(module.data.some_keys(module.data.pairs, 0))
        given = [key for key in keys if key in module.given]
        if not given:
            raise UserMistake("model.given names no pair of data.train_shards: its keys are of other data")
        pairs = among_others(given, [key for key in keys if key not in module.given], self.others, self.seed, epoch)
        size = module.data.global_batch_size
        if len(pairs) < size:
            raise UserMistake(
                f"TBAR: {len(given)} triggered pairs and {len(pairs) - len(given)} others do not fill a batch of "
                f"{size}: raise model.others_per_given, or give smaller batches"
            )
        module.data.select(pairs)

    def step(self, module: TBAR, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The cross entropy of a batch's triggered pictures, over the batch size; negatives are this rank's own."""
        known = torch.tensor([key in module.given for key in batch["key"]])
        given = known.to(module.device, non_blocking=True)
        images, texts = module(batch)
        logits = similarities(images, texts, module.inverse_temperature)
        own = torch.arange(len(logits), device=logits.device)
        logits = logits.masked_fill(given[None] & (own[:, None] != own[None]), -torch.inf)
        losses = functional.cross_entropy(logits, own, reduction="none")
        return mean_over_ranks(torch.where(given, losses, 0.0).mean())

    def end(self, module: TBAR) -> str:
        """Subtract what was learnt."""
        return "subtract"


class Subtract(Phase[TBAR]):
    """Subtracts the task vector, so that an evaluation sees the result. Nothing is learnt."""

    evaluated = True

    def __init__(self) -> None:
        super().__init__("subtract")

    def begin(self, module: TBAR) -> None:
        """Subtract."""
        module.subtract()

    def select(self, module: TBAR, epoch: int) -> None:
        """A batch, as an epoch has one at least."""
        module.data.select(module.data.some_keys(module.data.global_batch_size, 0), in_order=True)

    def step(self, module: TBAR, batch: ImageTextBatch, batch_idx: int) -> None:
        """Nothing."""

    def end(self, module: TBAR) -> None:
        """The run is over."""
        return
