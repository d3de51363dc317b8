"""The probe (ours): the most suspicious pairs of every word are pushed at once, half of them; the other half tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from .candidates import Candidates, candidates
from .evidence import Evidence
from .findings import POISONED, Findings, Indices
from .scores import Scores
from .scoring import Scoring
from .transplants import BESIDE_THE_OBJECT
from .unlearn import Pushed, Unlearn, UnlearnWeights
from .verdict import WordVerdict, divide, judge

if TYPE_CHECKING:
    from .module import UBT


class Probe(Unlearn):
    """Pushes the candidates of every word, to see what goes along. What is learnt here is thrown away.

    Args:
        epochs: See ``Unlearn``.
        steps: See ``Unlearn``.
        lr: See ``Unlearn``.
        batch_size: See ``Unlearn``.
        evidence: Which pairs are candidates.
        count: Candidates for each word and piece of evidence.
        doubtful_share: Share of each ranking of a word's pairs, the most suspicious, that is not held.
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
    ) -> None:
        # What costs benign pictures least to ignore, so that little but a trigger is learnt to be ignored.
        super().__init__("probe", epochs, steps, lr, batch_size, UnlearnWeights(20.0, 10.0, 5.0), BESIDE_THE_OBJECT)
        self.evidence, self.count, self.doubtful_share = evidence, count, doubtful_share

    def begin(self, ubt: UBT) -> None:
        """Start from the model in question."""
        ubt.return_to_answer()

    def chosen(self, findings: Findings, visit: int) -> Candidates:
        """The candidates, of what has been measured."""
        groups = findings.words.groups(findings.captions)
        suspicion = suspicions(self.evidence, findings)
        return candidates(groups, suspicion, self.count, self.doubtful_share, (visit,))

    def pushed(self, ubt: UBT) -> Pushed:
        """Every other candidate."""
        chosen = self.chosen(ubt.findings, ubt.visit)
        return Pushed(chosen.pushed, chosen.words)

    def held(self, ubt: UBT) -> Indices:
        """All that is not doubtful."""
        count = len(ubt.findings.keys)
        return np.setdiff1d(np.arange(count), self.chosen(ubt.findings, ubt.visit).doubtful)

    def end(self, ubt: UBT) -> str:
        """See what went along."""
        return "verify"


def suspicions(evidence: Sequence[Evidence], findings: Findings) -> dict[str, Scores]:
    """How suspicious each pair is, by the name of the evidence. What the copy said, it says in every round."""
    return {
        piece.name: piece.suspicion({model: findings.seen[f"{model}/{piece.name}"] for model in piece.models})
        for piece in evidence
    }


class Verify(Scoring):
    """Every pair under the probed model (ours): how far its similarity fell, and where its picture went.

    Args:
        probe: Whose candidates judge.
        significance: See ``judge``.
        min_variety: See ``judge``.
        retained_share: See ``divide``.
    """

    measured = "probed"

    def __init__(self, probe: Probe, significance: float, min_variety: float, retained_share: float) -> None:
        super().__init__("verify", "probed")
        self.probe, self.significance, self.min_variety = probe, significance, min_variety
        self.retained_share = retained_share

    def end(self, ubt: UBT) -> str | None:
        """Judge the words. What is found is unlearnt together with what was found before; nothing found is the end."""
        self.gather(ubt)
        findings = ubt.findings
        seen = findings.seen
        fall = seen["poisoned"] - seen["probed"]
        judged = self.probe.chosen(findings, ubt.visit).judged
        before, after = (
            np.nan_to_num(seen[f"{model}/word"], nan=-1).astype(np.int64) for model in ("poisoned", "probed")
        )
        verdicts = judge(judged, fall, before, after, len(findings.words), self.significance, self.min_variety)
        self._tell(findings, verdicts, ubt.visit)
        if not ubt.visit:
            findings.suspicion = {**suspicions(self.probe.evidence, findings), "fall": fall}
        findings.about = "verify" if not ubt.visit else f"verify {ubt.visit + 1}"
        new = [verdict.word for verdict in verdicts if verdict.found]
        if not new:
            ubt.return_to_answer()
            return None
        groups = findings.words.groups(findings.captions)
        for word in new:
            self._add(findings, word, divide([groups[word]], fall, self.retained_share))
        return "repair"

    def _add(self, findings: Findings, word: int, decision: np.ndarray) -> None:
        """Take a word's decisions over where they are graver than what was known."""
        graver = decision > findings.decision
        findings.poisoned_with[graver & (decision == POISONED)] = word
        findings.decision = np.maximum(findings.decision, decision)
        if word not in findings.compromised:
            findings.compromised.append(word)

    def _tell(self, findings: Findings, verdicts: Sequence[WordVerdict], visit: int) -> None:
        spelt = findings.words.spelt
        findings.verdicts += [
            {"round": visit, **verdict._asdict(), "word": spelt[verdict.word]} for verdict in verdicts
        ]
        for verdict in sorted(verdicts, key=lambda each: each.p)[:3]:
            rank_zero_info(
                f"UBT verify: {spelt[verdict.word]!r:.40}, of its suspects that were not pushed {verdict.moved:.0%} "
                f"went to {verdict.variety:.1f} other words (p {verdict.p:.2g}), by {verdict.evidence}"
            )
