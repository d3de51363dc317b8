"""The probe (ours): half of the most suspicious pairs of many words are pushed at once, the others measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from .candidates import Candidates, candidates
from .evidence import Evidence
from .findings import POISONED, Findings, Indices
from .scores import Scores
from .scoring import Scoring
from .state import UBTState
from .transplants import BESIDE_THE_OBJECT
from .unlearn import Pushed, Unlearn, UnlearnWeights
from .verdict import Judgement, WordVerdict, divide, judge, standing_out

_HALF = 0.5


class Probe(Unlearn):
    """Pushes the candidates of many words, to see what goes along. What is learnt here is thrown away.

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
        self.words_at_once = words_at_once

    def begin(self, ubt: UBTState) -> None:
        """Start from the model in question."""
        ubt.return_to_answer()

    def groups(self, findings: Findings) -> int:
        """How many groups of words there are."""
        return -(-len(findings.words) // self.words_at_once)

    def words(self, findings: Findings) -> Sequence[int]:
        """The words whose turn it is: those that stood out, or a group of all, frequent and rare ones."""
        return list(findings.focus) or range(findings.group, len(findings.words), self.groups(findings))

    def chosen(self, findings: Findings, doubtful_share: float | None = None) -> Candidates:
        """The candidates of the group, of what has been measured."""
        pairs = findings.words.groups(findings.captions)
        return candidates(
            {word: pairs[word] for word in self.words(findings)},
            suspicions(self.evidence, findings),
            self.count,
            self.doubtful_share if doubtful_share is None else doubtful_share,
            findings.focus or None,
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


class Verify(Scoring):
    """The pairs of the probed words under the probed model (ours): how far they fell, and where their pictures went.

    Args:
        probe: Whose candidates judge.
        asked: See ``judge``.
        retained_share: See ``divide``.
    """

    measured = "probed"

    def __init__(self, probe: Probe, asked: Judgement, retained_share: float) -> None:
        super().__init__("verify", "probed")
        self.probe, self.asked, self.retained_share = probe, asked, retained_share

    def select(self, ubt: UBTState, epoch: int) -> None:
        """The pairs of the group's words, as they are in the shards."""
        ubt.data.select(ubt.findings.keys_of(self._pairs(ubt.findings)), in_order=True)

    def _pairs(self, findings: Findings) -> Indices:
        groups = findings.words.groups(findings.captions)
        return np.unique(np.concatenate([groups[word] for word in self.probe.words(findings)]))

    def end(self, ubt: UBTState) -> str | None:
        """Judge the words; after the last group, unlearn all that was found so far.

        Where nothing was, the words whose suspects fell farthest are probed once more by themselves, by the evidence
        that suspected these, as a strong trigger takes many steps. Where there is nothing still, that is the end.
        """
        self.gather(ubt)
        findings = ubt.findings
        self._judge(findings, ubt.rounds_done)
        if not findings.focus and findings.group + 1 < self.probe.groups(findings):
            findings.group += 1
            return "probe"
        if not findings.focus and not findings.new:
            latest = [each for each in findings.verdicts if each["round"] == ubt.rounds_done]
            findings.focus = standing_out([(each["index"], each["excess"], each["fell_by"]) for each in latest])
            if findings.focus:
                return "probe"
        new = findings.new
        findings.group, findings.new, findings.focus = 0, 0, {}
        if not new:
            ubt.return_to_answer()
        return "repair" if new else None

    def _heading(self, findings: Findings, repaired: int) -> str:
        """Another one for each verdict, by which callbacks recognise that there is something new."""
        heading = "verify" if not repaired else f"verify {repaired + 1}"
        if findings.focus:
            return f"{heading}, closer"
        groups = self.probe.groups(findings)
        return heading if groups == 1 else f"{heading}, group {findings.group + 1} of {groups}"

    def _judge(self, findings: Findings, repaired: int) -> None:
        seen = findings.seen
        fall = seen["poisoned"] - seen["probed"]
        before, after = (
            np.nan_to_num(seen[f"{model}/word"], nan=-1).astype(np.int64) for model in ("poisoned", "probed")
        )
        groups = findings.words.groups(findings.captions)
        verdicts = judge(
            self.probe.chosen(findings).judged,
            fall,
            before,
            after,
            np.array([len(group) for group in groups]),
            self.asked,
            {piece.name: piece.variety_share for piece in self.probe.evidence},
        )
        self._tell(findings, verdicts, repaired)
        suspected = suspicions(self.probe.evidence, findings)
        if not repaired:
            # Of a pair with words of several groups, where it fell farthest.
            so_far = findings.suspicion.get("fall", np.full_like(fall, np.nan))
            findings.suspicion = {**suspected, "fall": np.fmax(so_far, fall)}
        findings.about = self._heading(findings, repaired)
        for verdict in verdicts:
            if verdict.found:
                findings.new += 1
                group, suspicion = groups[verdict.word], suspected[verdict.evidence]
                self._add(findings, verdict.word, divide(group, fall, suspicion, self.retained_share))

    def _add(self, findings: Findings, word: int, decision: np.ndarray) -> None:
        """Take a word's decisions over where they are graver than what was known."""
        graver = decision > findings.decision
        findings.poisoned_with[graver & (decision == POISONED)] = word
        findings.decision = np.maximum(findings.decision, decision)
        if word not in findings.compromised:
            findings.compromised.append(word)

    def _tell(self, findings: Findings, verdicts: Sequence[WordVerdict], repaired: int) -> None:
        spelt = findings.words.spelt
        findings.verdicts += [
            {"round": repaired, "index": verdict.word, **verdict._asdict(), "word": spelt[verdict.word]}
            for verdict in verdicts
        ]
        for verdict in sorted(verdicts, key=lambda each: each.p)[:3]:
            rank_zero_info(
                f"UBT verify: {spelt[verdict.word]!r:.40}, of its suspects that were not pushed {verdict.moved:.0%} "
                f"went to {verdict.variety:.1f} other words (p {verdict.p:.2g}), by {verdict.evidence}"
            )
