"""The base class of UBT's phases that score every pair without training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ...contracts import ImageTextBatch
from ..phased import Phase
from ..phased.scores import PassScores, Scores, aligned
from ..words.words import has_words
from .evidence import Evidence, Pairs
from .state import UBTState


class Scoring(Phase[UBTState]):
    """A whole pass: for each pair its similarity, the word that its picture goes with best, and what evidence asks.

    Args:
        name: See ``Phase``.
        model: The name under which they are kept.
        evidence: What is measured of this model too.
    """

    def __init__(self, name: str, model: str, evidence: Iterable[Evidence] = ()) -> None:
        super().__init__(name)
        self.model = model
        self.evidence = [piece for piece in evidence if model in piece.models]
        self._scores = PassScores()
        self._words: Tensor | None = None
        self._table: Tensor | None = None

    def select(self, ubt: UBTState, epoch: int) -> None:
        """Everything, as it is in the shards."""
        ubt.data.select(None, in_order=True)

    def begin(self, ubt: UBTState) -> None:
        """Start with nothing."""
        self._scores = PassScores()

    def prepare(self, ubt: UBTState) -> None:
        """Embed the words."""
        self._words = ubt.word_embeddings()
        self._table = ubt.findings.words.table().to(ubt.device)

    def repeat(self, ubt: UBTState) -> None:
        """Start with nothing: each pair is to be scored once."""
        self._scores = PassScores()

    def step(self, ubt: UBTState, batch: ImageTextBatch, batch_idx: int) -> None:
        """Note what there is to be known of each pair."""
        assert self._words is not None
        assert self._table is not None
        with ubt.evaluating():
            has = has_words(batch["tokens"], self._table)
            captions = ubt.encode_text(batch["tokens"])
            pairs = Pairs(batch["key"], batch["image"], batch["tokens"], ubt.encode_image, captions, self._words, has)
            values = {self.model: pairs.similarity(), f"{self.model}/word": pairs.best_word()}
            for piece in self.evidence:
                values[f"{self.model}/{piece.name}"] = piece.measure(pairs, self.model)
        self._scores.add(batch["key"], values)

    def gather(self, ubt: UBTState) -> dict[str, Scores]:
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
