"""The phase that forgets: locally, and no further than it must."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...contracts import ImageTextBatch, UserMistake
from ..losses import ContrastiveLoss, ForgettingLoss, RetentionLoss
from ..phased import Phase
from ..precision import at_least_float32, similarities
from .findings import BENIGN, POISONED, sample
from .localisation import only

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from ..ubt import UBT

_HELD = 1024
"""Poisoned pairs that forgetting draws from at most; their pictures stay in memory."""
_UNRELATED = 512
"""Benign pairs that tell how similar unrelated ones are."""


class ForgetWeights(NamedTuple):
    """How the losses of a forgetting are weighed."""

    retain: float
    """Of the contrastive loss of benign pairs."""
    hold: float
    """Of the cosine distance of their pictures' features to the poisoned model's."""
    forget: float
    """Of ``ForgettingLoss``."""


class Forget(Phase["UBT"]):
    """Unlearns the association of the poisoned pictures with the compromised tokens, from the poisoned model on.

    The image tower alone moves: with both, the text tower absorbs the forgetting, and full prompts keep the backdoor.
    Batch-norm statistics stay those of the poisoned model, so that poisoned and benign pictures may share a batch.

    Args:
        name: ``forget`` or ``forget again``.
        epochs: Most epochs; it stops an epoch after it has forgotten.
        steps: Steps of an epoch.
        lr: Constant.
        batch_size: Poisoned pairs of a step of each rank.
        weights: Of the losses.
        local: Whether only the compromised tokens are unlearnt; the whole caption otherwise.
        local_loss: See ``ContrastiveLoss``.
        successor: The phase that comes next; None where the run is over.
    """

    learning = ("image",)
    evaluated = True

    def __init__(
        self,
        name: str,
        epochs: int,
        steps: int,
        lr: float,
        batch_size: int,
        weights: ForgetWeights,
        local: bool,
        local_loss: bool = False,
        successor: str | None = None,
    ) -> None:
        super().__init__(name, epochs, lr)
        self.successor = successor
        self.steps, self.batch_size, self.weights, self.local = steps, batch_size, weights, local
        self.contrastive, self.forgetting, self.retention = (
            ContrastiveLoss(local_loss),
            ForgettingLoss(),
            RetentionLoss(),
        )
        self._poisoned_model: tuple[Encoder, ...] = ()
        self._seed = (0, 0)
        self._forgotten = False

    def select(self, ubt: UBT, epoch: int) -> None:
        """Benign pairs for the steps of an epoch, others in each."""
        benign, wanted = ubt.findings.having(BENIGN), self.steps * ubt.data.global_batch_size
        self._seed = (list(ubt.phases).index(self.name), epoch)
        ubt.data.select(ubt.findings.keys_of(sample(benign, wanted, *self._seed)))

    def begin(self, ubt: UBT) -> None:
        """Start from the poisoned model.

        Raises:
            UserMistake: If too few pairs are benign to retain anything.
        """
        benign, needed = len(ubt.findings.having(BENIGN)), ubt.data.global_batch_size
        if benign < needed:
            raise UserMistake(
                f"UBT finds {benign} benign pairs, too few to fill a batch of {needed} to retain: nearly all captions "
                f"have one of {', '.join(map(repr, ubt.findings.compromised.words))}; raise model.min_lift"
            )
        self._forgotten = False
        ubt.restore()

    def prepare(self, ubt: UBT) -> None:
        """Hold the poisoned pictures, what they are to be pushed away from, and the poisoned model."""
        frozen = deepcopy(ubt.encoder)
        frozen.load_state_dict(ubt.initial)
        self._poisoned_model = (frozen.eval().requires_grad_(False),)
        findings = ubt.findings
        keys = findings.keys_of(sample(findings.having(POISONED), _HELD, 0))
        self._pictures = ubt.normalised(ubt.data.pictures(keys))
        benign = findings.decision == BENIGN
        unrelated = benign & ~findings.captions.having(findings.compromised.tokens)
        others = findings.keys_of(sample(np.flatnonzero(unrelated if unrelated.any() else benign), _UNRELATED, 1))
        with ubt.evaluating():
            self._texts = ubt.encode_text(self._tokens(ubt, keys))
            features = frozen_features(frozen, ubt.normalised(ubt.data.pictures(others)))
            similarity = similarities(features, self._texts)
        self._unrelated, self._spread = similarity.mean(dim=0), similarity.std()

    def _tokens(self, ubt: UBT, keys: list[str]) -> Tensor:
        captions = ubt.findings.captions
        tokens = ubt.preprocessing.tokenize(ubt.data.captions(keys))
        if self.local:
            tokens = only(tokens, ubt.findings.compromised.tokens, captions.special, captions.padding)
        return tokens.to(ubt.device)

    def step(self, ubt: UBT, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Retention on benign pairs, forgetting on poisoned ones."""
        chosen, count = self._turn(ubt, batch_idx), len(batch["key"])
        with torch.no_grad():
            before = frozen_features(self._poisoned_model[0], batch["image"])
        features = ubt.encode_image(torch.cat([batch["image"], self._pictures[chosen]]))
        benign, poisoned = features[:count], features[count:]
        parts = {
            "hold": self.retention(benign, before),
            "forget": self.forgetting(poisoned, self._texts[chosen], self._unrelated[chosen]),
        }
        if self.weights.retain:
            with torch.no_grad():
                texts = ubt.encode_text(batch["tokens"])
            parts["retain"] = self.contrastive(benign, texts, ubt.inverse_temperature.detach())
        ubt.log_parts(**parts)
        return torch.stack([getattr(self.weights, name) * part for name, part in parts.items()]).sum()

    def over(self, ubt: UBT, epoch: int) -> bool:
        """Whether the poisoned pictures are no more similar to the compromised tokens than unrelated ones.

        They have to be so behind two epochs: the second one catches stragglers and brings benign features back.
        """
        before, self._forgotten = self._forgotten, ubt.agreed(self._is_forgotten(ubt))
        return before and self._forgotten

    def end(self, ubt: UBT) -> str | None:
        """Look again, if that is still to come."""
        return self.successor

    def state_dict(self) -> dict[str, Any]:
        """Whether it was forgotten behind the last epoch."""
        return {"forgotten": self._forgotten}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Restore it."""
        self._forgotten = state_dict["forgotten"]

    def _is_forgotten(self, ubt: UBT) -> bool:
        with ubt.evaluating():
            images = torch.cat([ubt.encode_image(block) for block in torch.split(self._pictures, 256)])
        excess = (images * self._texts).sum(dim=1) - self._unrelated
        return bool(excess.mean() <= self._spread)

    def _turn(self, ubt: UBT, batch_idx: int) -> Tensor:
        """Whose turn it is: all poisoned pairs one after the other, in an order drawn for the epoch."""
        count = len(self._pictures)
        size = min(self.batch_size, count)
        order = torch.from_numpy(np.random.default_rng(self._seed).permutation(count))
        start = (batch_idx * ubt.trainer.world_size + ubt.trainer.global_rank) * size
        return order[torch.arange(start, start + size) % count].to(ubt.device, non_blocking=True)


def frozen_features(encoder: Encoder, images: Tensor) -> Tensor:
    """Pictures ``(B, 3, S, S)`` to features ``(B, D)`` of unit length."""
    return torch.nn.functional.normalize(at_least_float32(encoder.encode_image(images)), dim=-1)
