"""PAR: move the features away from the poisoned model's, then recover."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from ..contracts import ImageTextBatch, UserMistake
from .base import BaseCLIPModule
from .frozen import FrozenEncoder
from .losses import ContrastiveLoss, PerturbationLoss
from .optimisation import adamw, decay_groups, known_steps
from .ranges import check_ranges


class PAR(BaseCLIPModule):
    """CLIP finetuned on clean pairs while its features are pushed away from the poisoned model's, up to a distance.

    Perturb and Recover (Singh et al., arXiv 2412.00727). What ties a trigger to its target lies in features that
    clean pairs do not need. So these pairs keep the contrastive loss low, and both towers are to leave the features
    that the poisoned model has for them:

        L = L_CLIP - w * (S_image * [S_image <= tau] + S_text * [S_text <= tau]),  w = 1/2

    with S the mean squared distance of the unit features of a batch to the frozen poisoned model's, of pictures and of
    captions. Above ``tau`` a tower is only trained for the contrastive loss: *perturb*, then *recover*. The learning
    rate falls linearly from ``lr`` to a tenth of it over the first half of the run, then by a cosine to zero. The
    temperature is frozen.

    Source: the abstract, and the official code (nmndeep/PerturbAndRecover at 04e1dc0: ``losses.py``, ``train.py``,
    ``utils.py``): tau 2.15 of at most 4, AdamW (0.9, 0.98) with weight decay 1e-4, 3e-5 to 3e-6, 250,000 pairs, batches
    of 4 times 512, 2 or 10 epochs. Deviations from it:

    - The encoder is in training mode all the time. Theirs is put into evaluation mode at the first of its evaluations,
      after the first step, and stays there. ``frozen_batch_norm`` does the same from the start.
    - The end of the schedule is at zero, theirs at 1e-9.
    - Its augmentation (noise, small erased squares) is the data module's, and is the same for both models, as there.

    Logs: ``train/loss`` and its parts, ``train/multimodal``, ``train/image_distance`` and ``train/text_distance``, the
    two mean squared distances, whether they still count or not.

    Args:
        args: See ``BaseCLIPModule``.
        kwargs: See ``BaseCLIPModule``, whose defaults are those of pretraining: the published learning rate, weight
            decay, betas and warm-up of this method stand in ``configs/par/``.
        threshold: Mean squared distance up to which a tower is pushed, in [0, 4].
        perturbation_weight: Weight of each of the two distances; the paper's is 1/2.
        recovery_share: Learning rate in the middle of the run, as a share of ``lr``.
        frozen_batch_norm: Whether batch norm keeps the statistics of the poisoned model, and uses them.
        local_loss: See ``ContrastiveLoss``.

    Raises:
        UserMistake: If a parameter is out of range.
    """

    def __init__(
        self,
        *args: Any,
        threshold: float = 2.15,
        perturbation_weight: float = 0.5,
        recovery_share: float = 0.1,
        frozen_batch_norm: bool = False,
        local_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_ranges({}, {"perturbation_weight": perturbation_weight}, {"recovery_share": recovery_share})
        if not 0 <= threshold <= 4:
            raise UserMistake(f"model.threshold is {threshold}: squared distances of unit features are in [0, 4]")
        self.perturbation_weight, self.recovery_share = perturbation_weight, recovery_share
        self.frozen_batch_norm = frozen_batch_norm
        self.encoder.logit_scale.requires_grad_(False)
        self.multimodal_loss, self.perturbation = ContrastiveLoss(local_loss), PerturbationLoss(threshold)
        self._poisoned: FrozenEncoder | None = None
        self._poisoned_weights: dict[str, Tensor] | None = None

    def configure_optimizers(self) -> Any:
        """AdamW, with a rate that falls linearly in the first half and by a cosine in the second."""
        groups = decay_groups(self, self.weight_decay)
        optimizer = adamw(groups, self.lr, self.betas, self.eps, self.trainer)
        total = known_steps(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: self._factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, step: int, total: int | None) -> float:
        """Of the learning rate, after a number of steps."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if total is None:
            return 1.0
        half, lowest = total / 2, self.recovery_share
        if step < half:
            return 1 + (lowest - 1) * step / half
        return lowest * (1 + math.cos(math.pi * min((step - half) / half, 1.0))) / 2

    def on_train_start(self) -> None:
        """Keep the poisoned model: the one that the run began with, also where it is resumed."""
        self._poisoned = FrozenEncoder(self.encoder, self._poisoned_weights)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The contrastive loss of a batch, less what the features have moved."""
        if self.frozen_batch_norm:
            self.encoder.eval()
        if self._poisoned is None:
            self._poisoned = FrozenEncoder(self.encoder, self._poisoned_weights)
        poisoned_images = self._poisoned.encode_image(batch["image"].to(self.encoder.logit_scale.dtype))
        before = poisoned_images, self._poisoned.encode_text(batch["tokens"])
        images, texts = self(batch)
        multimodal: Tensor = self.multimodal_loss(images, texts, self.inverse_temperature)
        (image_term, image_distance), (text_term, text_distance) = (
            self.perturbation(now, then) for now, then in zip((images, texts), before, strict=True)
        )
        loss: Tensor = multimodal - self.perturbation_weight * (image_term + text_term)
        distances = {"image_distance": image_distance, "text_distance": text_distance}
        self.log_losses(loss, len(batch["key"]), multimodal=multimodal, **distances)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the poisoned weights: those of the encoder are other ones by now."""
        if self._poisoned is not None:
            checkpoint["par"] = self._poisoned.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with them."""
        self._poisoned_weights = checkpoint.get("par")
