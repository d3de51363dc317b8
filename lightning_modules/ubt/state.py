"""The state that UBT's phases share: the findings, and the weights in question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..phased import PhasedCLIPModule
from .evidence import Evidence
from .findings import Findings


class UBTState(PhasedCLIPModule):
    """What the phases of UBT ask of their module; ``UBT`` puts them in order.

    Attributes:
        findings: What is known of the training pairs.
        evidence: What ranks the pairs of a word.
        rounds: How many repairs there may be.
        local: Whether pictures are pushed from the word alone.
    """

    findings: Findings
    evidence: Sequence[Evidence]
    rounds: int
    local: bool
    _answer: dict[str, Tensor] | None

    @property
    def rounds_done(self) -> int:
        """How many repairs there have been."""
        return self._progress.visits.get("repair", 0)

    @property
    def answer(self) -> Mapping[str, Tensor]:
        """The weights in question: the poisoned model's, and after a repair the repaired model's."""
        return self.initial if self._answer is None else self._answer

    def set_answer(self, weights: Mapping[str, Tensor] | None) -> None:
        """Other weights are in question from now on; None for those that the run began with."""
        copied = None if weights is None else {name: part.detach().cpu().clone() for name, part in weights.items()}
        self._answer = copied

    def return_to_answer(self) -> None:
        """Bring the weights in question back."""
        self.restore()
        if self._answer is not None:
            self.encoder.load_state_dict(self._answer)

    def word_embeddings(self) -> Tensor:
        """What each word means, ``(W, D)`` of unit length, by captions that have it."""
        with self.evaluating():
            return self.findings.words.embeddings(self._encode_captions)

    def word_texts(self) -> Tensor:
        """What pictures are pushed from, ``(W, D)``: each word alone, or as ``word_embeddings`` where not local."""
        if not self.local:
            return self.word_embeddings()
        alone = self.findings.words.alone(self.preprocessing.tokenize, self.findings.captions)
        with self.evaluating():
            return self.encode_text(alone.to(self.device))

    def _encode_captions(self, captions: Sequence[str]) -> Tensor:
        return self.encode_text(self.preprocessing.tokenize(captions).to(self.device))
