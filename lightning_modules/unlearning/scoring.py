"""What the phases share in which a model answers for every pair and learns nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...contracts import ImageTextBatch
from ..phased import Phase
from .scores import PassScores, Scores, aligned

if TYPE_CHECKING:
    from ..ubt import UBT


class Scoring(Phase["UBT"]):
    """A whole pass: one forward pass for each pair.

    Args:
        name: See ``Phase``.
        model: The name under which the similarities are kept.
    """

    def __init__(self, name: str, model: str) -> None:
        super().__init__(name)
        self.model = model
        self._scores = PassScores()

    def select(self, ubt: UBT, epoch: int) -> None:
        """Everything, as it is in the shards."""
        ubt.data.select(None, in_order=True)

    def begin(self, ubt: UBT) -> None:
        """Start with nothing."""
        self._scores = PassScores()

    def repeat(self, ubt: UBT) -> None:
        """Start with nothing: each pair is to be scored once."""
        self.begin(ubt)

    def step(self, ubt: UBT, batch: ImageTextBatch, batch_idx: int) -> None:
        """Note the similarity of each pair, and what the pieces of evidence ask for."""
        with ubt.evaluating():
            texts = ubt.encode_text(batch["tokens"])

            def similarity(images: Tensor) -> Tensor:
                return (ubt.encode_image(images) * texts).sum(dim=1)

            values = {self.model: similarity(batch["image"])}
            for evidence in ubt.evidence:
                if (seen := evidence.observe(self.model, batch, similarity)) is not None:
                    values[f"{evidence.name}/{self.model}"] = seen
        self._scores.add(batch["key"], values)

    def gather(self, ubt: UBT) -> dict[str, Scores]:
        """Keep what the pass has found, the same on all ranks, in the order of the first pass."""
        keys, values = self._scores.gather()
        self._scores = PassScores()
        findings = ubt.findings
        findings.keys = findings.keys or keys
        found = {name: aligned(keys, findings.keys, scores) for name, scores in values.items()}
        findings.seen.update(found)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The scores so far, of all ranks."""
        return self._scores.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with this rank's."""
        self._scores.load_state_dict(state_dict, rank)
