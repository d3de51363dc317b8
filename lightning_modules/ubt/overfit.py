"""The paper's phases of a copy: overfit it on weak pairs, and ask it what it thinks of all of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ...contracts import ImageTextBatch
from ..losses import ContrastiveLoss
from ..phased import Phase
from .evidence import OVERFITTED, Evidence
from .findings import most
from .scoring import Scoring
from .state import UBTState


class Overfit(Phase[UBTState]):
    """Contrastive training of a copy, without augmentation, on the pairs of weakest similarity.

    Args:
        weak_share: Which share of all pairs.
        epochs: How often each is seen.
        lr: Constant.
        local_loss: See ``ContrastiveLoss``.
    """

    learning = ("image", "rest")
    train_mode = True
    evaluated = True
    measured = OVERFITTED

    def __init__(self, weak_share: float, epochs: int, lr: float, local_loss: bool = False) -> None:
        super().__init__("overfit", epochs, lr)
        self.weak_share = weak_share
        self.loss = ContrastiveLoss(local_loss)

    def select(self, ubt: UBTState, epoch: int) -> None:
        """The weakest pairs; as many as fill a batch at least."""
        weakness = -ubt.findings.seen["poisoned"]
        count = max(int(self.weak_share * len(weakness)), ubt.data.global_batch_size)
        ubt.data.select(ubt.findings.keys_of(most(weakness, count)))

    def step(self, ubt: UBTState, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The contrastive loss of a batch."""
        images, texts = ubt(batch)
        loss: Tensor = self.loss(images, texts, ubt.inverse_temperature)
        return loss

    def end(self, ubt: UBTState) -> str:
        """Ask the copy."""
        return "ask the copy"


class AskCopy(Scoring):
    """What the overfitted copy makes of every pair.

    Args:
        evidence: What is measured of it.
    """

    measured = OVERFITTED

    def __init__(self, evidence: Iterable[Evidence]) -> None:
        super().__init__("ask the copy", OVERFITTED, evidence)

    def end(self, ubt: UBTState) -> str:
        """Keep what it found, and bring the poisoned model back."""
        self.gather(ubt)
        ubt.return_to_answer()
        return "probe"
