"""The probe (ours): half of the most suspicious pairs of many words are pushed at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..phased.scores import Scores
from .candidates import Candidates, candidates
from .evidence import Evidence
from .findings import Findings, Indices
from .state import UBTState
from .transplants import BESIDE_THE_OBJECT
from .unlearn import Pushed, Unlearn, UnlearnWeights

_HALF = 0.5
_GENTLER = 3
"""By how much lower the rate is where words are probed by themselves that nothing but a probe speaks against: pushed at
the full rate, a word's odd pictures go along far beyond chance, and ordinary ones too."""


class Probe(Unlearn):
    """Pushes the candidates of many words, to see what moves with them. What is learnt here is thrown away.

    Where there are more words than can be separated at once, they are probed group by group, each from the same model.

    Args:
        epochs: See ``Unlearn``.
        steps: See ``Unlearn``.
        lr: See ``Unlearn``.
        batch_size: See ``Unlearn``.
        evidence: Which pairs are candidates.
        count: Candidates for each word and piece of evidence.
        doubtful_share: Share of each ranking of a word's pairs, the most suspicious, that is not held; where the pairs
            without any of the words are half of all or more, half of it, as most of a word's pairs may be poisoned.
        words_at_once: Words of a group, at most.
    """

    measured = "probed"

    def __init__(
        self,
        epochs: int,
        steps: int,
        lr: float,
        batch_size: int,
        evidence: Sequence[Evidence],
        count: int,
        doubtful_share: float,
        words_at_once: int,
    ) -> None:
        # What costs benign pictures least to ignore, so that little but a trigger is learnt to be ignored.
        super().__init__("probe", epochs, steps, lr, batch_size, UnlearnWeights(20.0, 10.0, 5.0), BESIDE_THE_OBJECT)
        self.evidence, self.count, self.doubtful_share = evidence, count, doubtful_share
        # Where somebody wants such evidence alone, it is pushed.
        pushes = any(piece.jointly == "pushed" for piece in evidence)
        self.joint = [piece for piece in evidence if piece.jointly != "absent" or not pushes]
        self.absent = [piece for piece in evidence if piece not in self.joint]
        self.judged_only = [piece.name for piece in self.joint if pushes and piece.jointly == "judged"]
        self.words_at_once = words_at_once

    def begin(self, ubt: UBTState) -> None:
        """Start from the model in question."""
        ubt.return_to_answer()

    def learning_rate(self, module: UBTState, step: int) -> float:
        """See ``Unlearn``; lower where words are probed gently."""
        rate = super().learning_rate(module, step)
        return rate / _GENTLER if module.findings.turn.gently else rate

    def groups(self, findings: Findings) -> int:
        """How many groups of words there are."""
        return -(-len(findings.words) // self.words_at_once)

    def words(self, findings: Findings) -> Sequence[int]:
        """The words whose turn it is: those that stood out, or a group of all, frequent and rare ones."""
        turn = findings.turn
        return list(turn.focus) or range(turn.group, len(findings.words), self.groups(findings))

    def chosen(self, findings: Findings, doubtful_share: float | None = None) -> Candidates:
        """The candidates of the group, of what has been measured."""
        pairs, focus = findings.words.groups(findings.captions), findings.turn.focus
        return candidates(
            {word: pairs[word] for word in self.words(findings)},
            suspicions(self.evidence if focus else self.joint, findings),
            self.count,
            self.doubtful_share if doubtful_share is None else doubtful_share,
            focus or None,
            () if focus else self.judged_only,
        )

    def pushed(self, ubt: UBTState) -> Pushed:
        """Every other candidate."""
        chosen = self.chosen(ubt.findings)
        return Pushed(chosen.pushed, chosen.words)

    def held(self, ubt: UBTState) -> Indices:
        """All that is not doubtful: of these words the lower half of each ranking, where other pairs are many."""
        findings = ubt.findings
        tokens = [token for word in self.words(findings) for token in findings.words.tokens[word]]
        without = np.flatnonzero(~findings.captions.having(tokens))
        share = _HALF if 2 * len(without) >= len(findings.keys) else self.doubtful_share
        held = np.setdiff1d(np.arange(len(findings.keys)), self.chosen(findings, share).doubtful)
        if len(held) >= ubt.data.global_batch_size:
            return held
        # Of a small set all but those that are pushed.
        return np.setdiff1d(np.arange(len(findings.keys)), self.chosen(findings).pushed)

    def end(self, ubt: UBTState) -> str:
        """See what went along."""
        return "verify"


def suspicions(evidence: Sequence[Evidence], findings: Findings) -> dict[str, Scores]:
    """How suspicious each pair is, by the name of the evidence. What the copy said, it says in every round."""
    return {
        piece.name: piece.suspicion({model: findings.seen[f"{model}/{piece.name}"] for model in piece.models})
        for piece in evidence
    }
