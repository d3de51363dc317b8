"""CleanCLIP: finetuning on clean pairs that weakens the association of trigger and target."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor

from ..contracts import ImageTextBatch, UserMistake
from .base import BaseCLIPModule
from .batch_norm import RunningStatisticsKept
from .losses import ContrastiveLoss, SelfSupervisedLoss
from .views import check_views


class CleanCLIP(BaseCLIPModule):
    """CLIP finetuned with the multimodal contrastive loss and a self-supervised one within each modality.

    CleanCLIP (Bansal et al., arXiv 2303.03323): ``w_mm * L_CLIP + w_ss * (L_image + L_text) / 2``, where ``L_image``
    and ``L_text`` ask each picture and each caption to find its own augmented view among the views of the batch. The
    paper has both weights at 1. With ``self_supervised_weight=0`` it is the paper's baseline, plain finetuning: views
    are neither needed nor encoded.

    As in the official code, one temperature serves all three losses and learns from all three. Deviations from it:

    - Originals and views are encoded separately, since batch norm would otherwise see a mixture that no evaluation
      ever shows; ``joint_batch_norm`` has them in one batch. Captions meet no batch norm.
    - Similarities are float32, and autocast covers the encoders instead of the loss alone.
    - Gradients reach the features of all ranks. The official code gathers them without, which divides the gradient by
      the number of ranks.
    - The optimiser starts afresh; theirs can resume the state of the poisoned run.
    - The schedule counts steps, so the warm-up is there in runs of long epochs and the end is at zero.

    The views are the data module's (see ``TransformView`` and ``EDA``), drawn afresh each epoch.

    Logs: ``train/loss`` and its parts before weighting, ``train/multimodal``, ``train/image_self_supervised``,
    ``train/text_self_supervised``; ``train/inverse_temperature``.

    Args:
        args: See ``BaseCLIPModule``.
        kwargs: See ``BaseCLIPModule``, whose defaults are those of pretraining: the published learning rate, weight
            decay, betas and warm-up of this method stand in ``configs/cleanclip/``.
        multimodal_weight: Weight of the contrastive loss between pictures and captions.
        self_supervised_weight: Weight of the mean of the two losses within a modality.
        joint_batch_norm: Encode pictures and their views as one batch, as the official code does. Otherwise each has
            its own batch statistics, and the running ones, with which the model is evaluated, are of the originals.
        local_loss: With several ranks, each computes the similarities of its own pairs alone: less memory, the same
            loss and gradient. See ``ContrastiveLoss``.

    Raises:
        UserMistake: If a weight is negative, both are 0, or micro-batches would take apart what ``joint_batch_norm``
            has in one.
    """

    def __init__(
        self,
        *args: Any,
        multimodal_weight: float = 1.0,
        self_supervised_weight: float = 1.0,
        joint_batch_norm: bool = False,
        local_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not (multimodal_weight >= 0 and self_supervised_weight >= 0):
            raise UserMistake("model: multimodal_weight and self_supervised_weight are at least 0")
        if multimodal_weight == self_supervised_weight == 0:
            raise UserMistake("model: multimodal_weight and self_supervised_weight are both 0: nothing would be learnt")
        if joint_batch_norm and self.execution.micro_batch_size is not None:
            raise UserMistake(
                "model: joint_batch_norm has pictures and their views in one batch, micro_batch_size takes them apart: "
                "leave one of them out"
            )
        self.multimodal_weight, self.self_supervised_weight = multimodal_weight, self_supervised_weight
        self.joint_batch_norm = joint_batch_norm
        self.multimodal_loss = ContrastiveLoss(local_loss)
        self.self_supervised_loss = SelfSupervisedLoss(local_loss)

    def check_batches(self, names: Container[str]) -> None:
        """Check whether a batch has captions and the views that the loss needs."""
        super().check_batches(names)
        self._check_views(names)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The weighted sum of the losses of a batch."""
        self._check_views(batch)
        scale, parts = self.inverse_temperature, {}
        if self.self_supervised_weight:
            images, image_views = self._encode_images(batch)
            texts, text_views = self.encode_text(batch["tokens"]), self.encode_text(batch["tokens_view"])
            parts["image_self_supervised"] = self.self_supervised_loss(images, image_views, scale)
            parts["text_self_supervised"] = self.self_supervised_loss(texts, text_views, scale)
        else:
            images, texts = self(batch)
        multimodal: Tensor = self.multimodal_loss(images, texts, scale)
        loss = self.multimodal_weight * multimodal
        for part in parts.values():
            loss = loss + self.self_supervised_weight * part / 2
        self.log_losses(loss, len(batch["key"]), multimodal=multimodal, **parts, inverse_temperature=scale)
        return loss

    def _encode_images(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Features of the pictures and of their views, ``(B, D)`` each."""
        if self.joint_batch_norm:
            images, views = self.encode_image(torch.cat([batch["image"], batch["image_view"]])).chunk(2)
            return images, views
        images = self.encode_image(batch["image"])
        with RunningStatisticsKept(self.encoder.image_tower):
            return images, self.encode_image(batch["image_view"])

    def _check_views(self, present: Container[str]) -> None:
        if self.self_supervised_weight:
            without = "; set model.self_supervised_weight to 0 to train without it"
            check_views(present, "CleanCLIP's self-supervised loss", without)
