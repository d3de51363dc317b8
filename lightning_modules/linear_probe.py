"""A linear probe: a head on the features of a model that stays as it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..contracts import LabelledBatch
from .supervised_finetune import SupervisedFinetune


class LinearProbe(SupervisedFinetune):
    """A linear head, trained with cross entropy on clean labelled pictures, over frozen features.

    The baseline of CleanCLIP (Bansal et al., arXiv 2303.03323; its official code has learning rate 0.005) and of RVPT
    (arXiv 2412.20392): nothing of the model is changed, so a backdoor is still in it, but captions, which a backdoor
    ties pictures to, no longer decide. Its figures are those of its head; the zero-shot ones are the poisoned model's.

    Batch norm and dropout are as in an evaluation. As in ``SupervisedFinetune``, the head sees the features as the
    encoder makes them, not normalised.

    Logs: ``train/loss``. The callbacks log the head's figures as ``val/head_clean_accuracy`` and so on, and give it a
    row ``LinearProbe-head`` in ``results.csv``.

    Args:
        num_classes: Outputs of the head: the number of classes of the zero-shot set, whose order labels follow.
        lr: Peak learning rate of the head.

    Raises:
        UserMistake: If there are fewer than two classes.
    """

    def __init__(self, *args: Any, num_classes: int, lr: float = 5e-3, **kwargs: Any) -> None:
        super().__init__(*args, num_classes=num_classes, lr=lr, **kwargs)
        self.encoder.requires_grad_(False)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """The cross entropy of the head on a batch."""
        self.encoder.eval()
        return super().training_step(batch, batch_idx)
