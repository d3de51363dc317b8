"""Supervised finetuning of the image encoder on labelled pictures."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..contracts import ClassLogits, LabelledBatch, UserMistake, ZeroShotBatch, ZeroShotData, ZeroShotOutputs
from ..run_folder.results import HEAD
from ..trainer.lookup import data_of
from .base import BaseCLIPModule
from .precision import at_least_float32


class SupervisedFinetune(BaseCLIPModule):
    """The image encoder and a new linear head, trained with cross entropy on clean labelled pictures.

    CleanCLIP's supervised defence (Bansal et al., arXiv 2303.03323): the pictures of the task take the trigger out of
    the image encoder. The paper has learning rate 1e-4, 500 steps of warm-up, 10 epochs, batches of 64; the official
    code's own flags say 80. As there, the head sees the features as the encoder makes them, not normalised.

    The text tower and the temperature are frozen. An evaluation classifies the same pictures twice: zero-shot, against
    the captions of the classes, and through the head. Deviation from the official code: its attack success of the head
    keeps pictures of the target in the denominator.

    Logs: ``train/loss``. The callbacks log the head's figures as ``val/head_clean_accuracy``,
    ``val/head_attack_success_rate`` and so on, and give it a row ``SupervisedFinetune-head`` in ``results.csv``.

    Args:
        args: See ``BaseCLIPModule``.
        kwargs: See ``BaseCLIPModule``, whose defaults are those of pretraining: the published learning rate, weight
            decay, betas and warm-up of this method stand in ``configs/supervised/``.
        num_classes: Outputs of the head: the number of classes of the zero-shot set, whose order labels follow.

    Raises:
        UserMistake: If there are fewer than two classes.
    """

    def __init__(self, *args: Any, num_classes: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if num_classes < 2:
            raise UserMistake(f"model.num_classes is {num_classes}: a head has at least two classes")
        self.num_classes = num_classes
        self.encoder.requires_grad_(False)
        self.encoder.image_tower.requires_grad_(True)
        self.head = nn.Linear(self.encoder.embedding_dim, num_classes)

    @property
    def head_defence(self) -> str:
        """The name of the defence for the head's row."""
        return f"{type(self).__name__}{HEAD}"

    def setup(self, stage: str) -> None:
        """Check that the head has the classes of the data.

        Raises:
            UserMistake: If it has another number of them.
        """
        data = data_of(self.trainer, ZeroShotData)
        if stage == "predict" or data is None:
            return
        classes = len(data.class_prompts.classnames)
        if classes != self.num_classes:
            raise UserMistake(f"model.num_classes is {self.num_classes}, but data.zero_shot has {classes} classes")

    def check_batches(self, names: Container[str]) -> None:
        """Check whether a batch has labels; captions are not needed.

        Raises:
            UserMistake: If it has none.
        """
        if "label" not in names:
            raise UserMistake(f"{type(self).__name__} needs labelled pictures: use LabelledDataModule as data")

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """The cross entropy of the head on a batch."""
        loss = functional.cross_entropy(self._head_logits(self._features(batch["image"])), batch["label"])
        self.log_losses(loss, len(batch["key"]))
        return loss

    def validation_step(self, batch: ZeroShotBatch, batch_idx: int) -> ZeroShotOutputs:
        """Logits of the clean and the triggered pictures, zero-shot and of the head, each picture encoded once."""
        clean = self._features(batch["image"])
        triggered = {name: self._features(images) for name, images in batch["triggered"].items()}
        head: ClassLogits = {
            "logits": self._head_logits(clean),
            "triggered_logits": self.attack_logits(clean, triggered, lambda features, _: self._head_logits(features)),
        }
        outputs = self.zero_shot_outputs(
            batch["label"],
            functional.normalize(clean, dim=-1),
            {name: functional.normalize(features, dim=-1) for name, features in triggered.items()},
        )
        return {**outputs, "head": head}

    def _features(self, images: Tensor) -> Tensor:
        return at_least_float32(self.execution.image(self.encoder, images))

    def _head_logits(self, features: Tensor) -> Tensor:
        # As similarities: half precision would make classes tie.
        weight, bias = at_least_float32(self.head.weight), at_least_float32(self.head.bias)
        with torch.autocast(features.device.type, enabled=False):
            return functional.linear(features.to(weight.dtype), weight, bias)
