"""DECREE: looks for a backdoor in an image encoder by inverting the trigger, without labels."""

from __future__ import annotations

from collections.abc import Container

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from ..contracts import ImageTextBatch, LabelledBatch, UserMistake
from ..run_folder.decree import DECREERecord
from ..trainer.lookup import folder_to_write
from ..trainer.seed import run_seed
from .base import BaseCLIPModule
from .detection import PICTURE, AdaptiveCost, write_trigger

_EDGE = 1e-6
"""What a mask or a pattern stays away from 0 and 1 at the start: the ends of tanh are infinitely far."""


class DECREE(BaseCLIPModule):
    """Looks for the smallest patch that makes all pictures embed alike; the encoder stays as it is.

    DECREE (Feng et al., arXiv 2303.15180): the trigger of a backdoored encoder is a shortcut, so a small one collapses
    the embeddings of all pictures, while a clean encoder has to be shown nearly the whole picture. A mask m and a
    pattern p are optimised over pictures x: the mean cosine similarity between the embeddings of two different stamped
    pictures ``(1 - m) x + m p`` is to grow, and the L1 norm of the mask to fall:

        loss = -mean cosine + cost * L1(m)

    The cost adapts (see ``AdaptiveCost``); a step whose cosine is above ``threshold`` is a success, and of these the
    smallest mask is kept. Its L1 norm counts three channels, as theirs. P-L1 is the norm as a share of the largest one
    that the input admits, in [0, 1]: the paper calls an encoder trojaned below 0.1. Where no step was a success, there
    is no trigger, and both are that of the whole picture.

    Defaults are those of the official code (``main.py`` at 12306bd) for CLIP: Adam with 0.5 and (0.5, 0.9), a random
    mask, an end after 35 successes without a smaller mask. Deviations from it:

    - The learning rate is constant; theirs falls to 0.1 and 0.05 after 200 and 500 epochs.
    - Numbers are single precision, theirs double.
    - The mask may start anywhere; their runs on CLIP start from a square of 176 of 224 pixels.

    Any pictures will do, of the encoder's kind or not. They are needed at least two in a batch; captions are not looked
    at. The recovered trigger is left in the run folder as ``trigger.png`` (the pattern, its opacity the mask) and,
    exactly, ``trigger.safetensors`` (``mask`` ``(S, S)`` and ``pattern`` ``(3, S, S)``, in [0, 1]), with the figures in
    ``decree.json``.

    Logs: ``train/loss`` and its parts before weighting, ``train/cosine`` and ``train/l1_norm``; ``decree/cost``;
    ``decree/best_l1_norm`` and ``decree/best_p_l1_norm`` of the smallest mask so far.

    Args:
        encoder: As in ``BaseCLIPModule``.
        init_from: Weights of the model; None where the encoder's name stands for pretrained ones.
        lr: Learning rate of Adam.
        betas: Adam's decay rates of the running averages of the gradient and its square, in [0, 1).
        eps: Added to the denominator of Adam's update.
        threshold: Least mean cosine similarity of a success, in (0, 1).
        patience: Steps without a smaller mask after which it ends, once there is a trigger.
        seed: What mask and pattern start from; the seed of ``seed_everything`` unless given.

    Raises:
        UserMistake: If an argument is out of range.
    """

    best_norm: Tensor
    best_cosine: Tensor
    best_mask: Tensor
    best_pattern: Tensor
    since_better: Tensor

    is_defence = False

    def __init__(
        self,
        encoder: str,
        init_from: str | None = None,
        lr: float = 0.5,
        betas: tuple[float, float] = (0.5, 0.9),
        eps: float = 1e-8,
        threshold: float = 0.99,
        patience: int = 35,
        seed: int | None = None,
    ) -> None:
        super().__init__(encoder, init_from, lr, 0.0, betas, eps)
        if not 0 < threshold < 1:
            raise UserMistake(f"model.threshold is {threshold}; a mean cosine similarity to reach lies between 0 and 1")
        if patience < 1:
            raise UserMistake(f"model.patience is {patience}, not at least 1")
        self.threshold, self.patience = threshold, patience
        self.encoder.requires_grad_(False)
        side = self.encoder.image_size
        start = torch.rand(4, side, side, generator=torch.Generator().manual_seed(run_seed(seed)))
        # As theirs, tanh(logits) / 2 + 1/2: the learning rate is of that.
        self.logits = nn.Parameter(torch.logit(start, eps=_EDGE) / 2)
        self.cost = AdaptiveCost()
        for name, value in (
            ("best_norm", torch.tensor(float(3 * side * side))),
            ("best_cosine", torch.tensor(torch.nan)),
            ("best_mask", torch.ones(side, side)),
            ("best_pattern", torch.full((3, side, side), 0.5)),
            ("since_better", torch.tensor(0)),
        ):
            self.register_buffer(name, value)

    @property
    def trigger(self) -> tuple[Tensor, Tensor]:
        """Mask ``(S, S)`` and pattern ``(3, S, S)`` as they are now, in [0, 1]."""
        values = (2 * self.logits).sigmoid()
        return values[0], values[1:]

    @property
    def found(self) -> bool:
        """Whether there was a success."""
        return not bool(self.best_cosine.isnan())

    @property
    def l1_norm(self) -> float:
        """L1 norm of the smallest mask of a success, over three channels; of the whole picture where there is none."""
        return float(self.best_norm)

    @property
    def p_l1_norm(self) -> float:
        """The same as a share of the largest one, in [0, 1]."""
        return self.l1_norm / (3 * self.encoder.image_size**2)

    def stamped(self, images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, with a trigger.

        Args:
            images: The pictures.
            mask: Mask, ``(S, S)``, opacity in [0, 1].
            pattern: Colours of the trigger, ``(3, S, S)``, in [0, 1].
        """
        mean, std = self.scales
        return (1 - mask) * images + mask * ((pattern - mean) / std)

    def check_batches(self, names: Container[str]) -> None:
        """Check whether a batch has pictures; nothing else is needed.

        Raises:
            UserMistake: If it has none.
        """
        if "image" not in names:
            raise UserMistake("DECREE needs pictures: use ImageTextDataModule or LabelledDataModule as data")

    def on_train_start(self) -> None:
        """Put the encoder into the mode in which it is used."""
        self.encoder.eval()

    def training_step(self, batch: ImageTextBatch | LabelledBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; the smallest mask that succeeds is kept on the way."""
        mask, pattern = self.trigger
        cosine = mean_cosine(self.encode_image(self.stamped(batch["image"], mask, pattern)))
        norm = 3 * mask.sum()
        cost = self.cost.value.clone()  # which changes in place before the backward pass
        loss = -cosine + cost * norm
        self._note(cosine, norm, mask, pattern)
        self.log_losses(loss, len(batch["key"]), cosine=cosine, l1_norm=norm)
        self.log_dict(
            {
                "decree/cost": cost,
                "decree/best_l1_norm": self.best_norm,
                "decree/best_p_l1_norm": self.best_norm / (3 * mask.numel()),
            },
            batch_size=1,
        )
        return loss

    @torch.no_grad()
    def _note(self, cosine: Tensor, norm: Tensor, mask: Tensor, pattern: Tensor) -> None:
        """Keep the trigger if it is the smallest so far, and adapt the cost. All ranks agree, and nobody waits."""
        agreed: Tensor = self.trainer.strategy.reduce(cosine.detach().clone(), reduce_op="mean")
        success = agreed > self.threshold
        better = success & (norm < self.best_norm)
        for best, new in (
            (self.best_norm, norm),
            (self.best_cosine, agreed),
            (self.best_mask, mask),
            (self.best_pattern, pattern),
        ):
            best.copy_(torch.where(better, new, best))
        # Counted from the first trigger on.
        self.since_better.copy_(torch.where(better | self.best_cosine.isnan(), 0, self.since_better + 1))
        self.cost.update(success)

    def constrain(self) -> None:
        """Nothing: the temperature is the model's own."""

    def on_train_epoch_end(self) -> None:
        """End where no smaller trigger turns up."""
        if bool(self.since_better >= self.patience):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on mask and pattern, at a constant rate."""
        return torch.optim.Adam([self.logits], lr=self.lr, betas=self.betas, eps=self.eps)

    def on_train_end(self) -> None:
        """Leave the trigger and the figures in the run folder."""
        folder = folder_to_write(self.trainer)
        if folder is None:
            return
        cosine = float(self.best_cosine) if self.found else None
        steps = self.trainer.global_step
        DECREERecord(self.found, self.l1_norm, self.p_l1_norm, cosine, self.threshold, steps).write(folder)
        if not self.found:
            rank_zero_info("DECREE: no trigger collapses the embeddings")
            return
        write_trigger(folder, self.best_mask, self.best_pattern)
        rank_zero_info(
            f"DECREE: a trigger of L1 norm {self.l1_norm:.1f} (P-L1 {self.p_l1_norm:.4f}): {folder / PICTURE}"
        )


def mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine similarity between two different ones of B features ``(B, D)`` of unit length, a scalar.

    Raises:
        UserMistake: If there are fewer than two.
    """
    count = len(features)
    if count < 2:
        raise UserMistake("DECREE compares pictures with each other: data.batch_size must be at least 2")
    # The sum of all pairs is the squared length of the sum; of a picture with itself it is 1.
    return (features.sum(dim=0).square().sum() - count) / (count * (count - 1))
