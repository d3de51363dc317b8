"""RoCLIP: pretraining that every few epochs matches pictures with other captions than their own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..contracts import ImageTextBatch
from .base import BaseCLIPModule
from .feature_pool import FeaturePool
from .losses import ContrastiveLoss
from .ranges import check_ranges


class RoCLIP(BaseCLIPModule):
    """A CLIP that is pretrained on data that may be poisoned, so that poison is not learnt. It cleans no model.

    RoCLIP (Yang et al., arXiv 2303.06854) keeps a pool of the captions of the last batches. In every K-th epoch each
    picture is matched with the caption of the pool that is most similar to it, in place of its own: the symmetric
    contrastive loss of pictures and these captions. A poisoned picture is far from the captions of its target until
    they have been matched, so the tie is not made; a clean one finds a caption that says the same. In the other epochs
    it is CLIP's own loss. Pictures and captions are augmented, which the paper counts as a part of the defence:
    pictures by ``data.augmentation``, captions by ``data.text_view``, whose view stands in for the caption where it is
    given.

    Sources: the abstract and the official code (``model/src/train.py`` at 1c76534, where K is ``break_epoch``). As
    there, captions of the pool have no gradient, so that the text tower learns in the other epochs alone, and the loss
    of a picture with its own caption counts nothing in the K-th. Deviations:

    - The pool is filled in all epochs, so it holds captions of this model when they are first asked for. Theirs begins
      with random vectors and is filled in the K-th epochs alone.
    - A checkpoint keeps the pool; theirs loses it.
    - Gradients reach the pictures of all ranks.

    A run of this class is a defence although it plants what it is given: it starts from random weights, and its rows
    say what would be if one had trained like this.

    Logs: ``train/loss``, ``train/matched`` (1 in epochs in which pictures are matched, else 0),
    ``train/inverse_temperature``.

    Args:
        args: See ``BaseCLIPModule``.
        kwargs: See ``BaseCLIPModule``, whose defaults are those of pretraining: the published learning rate, weight
            decay, betas and warm-up of this method stand in ``configs/roclip/``.
        match_every: K: pictures are matched with others' captions in every K-th epoch, 1 for all.
        pool_size: Captions of the pool.
        local_loss: See ``ContrastiveLoss``.

    Raises:
        UserMistake: If a parameter is out of range.
    """

    is_defence: ClassVar[bool | None] = True

    def __init__(
        self, *args: Any, match_every: int = 2, pool_size: int = 21_845, local_loss: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_ranges({"match_every": match_every, "pool_size": pool_size}, {})
        self.match_every, self.pool = match_every, FeaturePool(pool_size, self.encoder.embedding_dim)
        self.loss = ContrastiveLoss(local_loss)

    @property
    def matches(self) -> bool:
        """Whether this is an epoch in which pictures are matched with the pool's captions."""
        return (self.current_epoch + 1) % self.match_every == 0

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The contrastive loss of a batch, with the captions of the pool or with its own."""
        matches, images = self.matches, self.encode_image(batch["image"])
        texts = self.encode_text(batch.get("tokens_view", batch["tokens"]))
        partners = self.pool.nearest(images) if matches else texts
        loss: Tensor = self.loss(images, partners, self.inverse_temperature)
        loss = loss + 0 * texts.sum()  # as there: with several ranks every parameter waits for a gradient
        self.pool.add(texts)
        matched = torch.full((), float(matches), device=loss.device)
        self.log_losses(loss, len(batch["key"]), matched=matched, inverse_temperature=self.inverse_temperature)
        return loss
