"""Contrastive training of a CLIP model, on poisoned data or not."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..contracts import ImageTextBatch, TrainingPoison
from .base import BaseCLIPModule
from .losses import ContrastiveLoss


class PoisonedCLIP(BaseCLIPModule):
    """CLIP trained with the symmetric contrastive loss: what an attacker's victim runs.

    It pretrains from scratch or finetunes, whatever the data module streams; nothing in it knows of an attack.
    Poisoning contrastive models: Carlini and Terzis, arXiv 2106.09667. Its defaults are CleanCLIP's pretraining
    (arXiv 2303.03323, official code): AdamW, 5e-4, weight decay 0.1.

    Its own runs are no defence. It is the base for both, though, as it has the loss: a subclass is named as the defence
    in ``results.csv`` unless its run plants poison, that is, trains on a plan's, or on any from random weights. A
    defence takes the poison of an earlier run by its manifest. Where that is not enough, say ``is_defence``.

    Logs: ``train/loss``, ``train/inverse_temperature``.

    Args:
        local_loss: With several ranks, each computes the similarities of its own pairs alone: less memory, the same
            loss and gradient. See ``ContrastiveLoss``.
    """

    def __init__(self, *args: Any, local_loss: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss = ContrastiveLoss(local_loss)

    def defends(self, poison: TrainingPoison) -> bool:
        """Whether a run defends a model: not this class's own, and not one that plants a plan's poison.

        Args:
            poison: Where the poison in the training pairs comes from.
        """
        if type(self) is PoisonedCLIP or (self.is_defence is None and poison == "plan"):
            return False
        return super().defends(poison)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The contrastive loss of a batch."""
        images, texts = self(batch)
        loss: Tensor = self.loss(images, texts, self.inverse_temperature)
        self.log_losses(loss, len(batch["key"]), inverse_temperature=self.inverse_temperature)
        return loss
