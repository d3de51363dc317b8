"""The phase that measures a probe: how far the suspects of each probed word that were not pushed have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ..phased.scores import Scores
from .candidates import Judged, candidates
from .findings import POISONED, Findings, Indices, Turn
from .fragility import fragility, margins
from .probe import Probe, suspicions
from .scoring import Scoring
from .state import UBTState
from .verdict import (
    Judgement,
    WordVerdict,
    accused,
    divide,
    judge,
    least_variety,
    most_suspected,
    standing_out,
)

_GENTLY = 1000
"""By how much larger the p may be beyond which nobody is asked, of words that are probed gently: of clean CIFAR-10
models' words they are as chance has them there, the least of 23 was .01, and WaNet's "bird" has 5e-8 or 1e-5 by the
seed."""
_ANYTHING = 0.5
"""To how many words their suspects have to go, as a share of pictures of anything (``Evidence.variety_share``): odd
pictures of a word may move alike however gently they are pushed, but to few words. Seen of a clean model's shapes with
a p down to 3e-22: at most .43; of WaNet's targets: at least .53."""


class Witness(NamedTuple):
    """When the second witness confirms what the probe says of a word."""

    min_fragility: float
    """Least ``fragility`` of its suspects."""
    certain: float
    """Largest p at which nobody has to confirm it, as some triggers no gentle change shakes. It is that small since odd
    pictures go along far beyond chance where they are pushed hard."""


class Verify(Scoring):
    """The pairs of the probed words under the probed model (ours): how far they fell, and where their pictures went.

    Args:
        probe: Whose candidates judge.
        asked: See ``judge``.
        witness: What has to confirm it.
        retained_share: See ``divide``.
    """

    measured = "probed"

    def __init__(self, probe: Probe, asked: Judgement, witness: Witness, retained_share: float) -> None:
        super().__init__("verify", "probed")
        self.probe, self.asked, self.witness, self.retained_share = probe, asked, witness, retained_share

    def select(self, ubt: UBTState, epoch: int) -> None:
        """The pairs of the group's words, as they are in the shards."""
        ubt.data.select(ubt.findings.keys_of(self._pairs(ubt.findings)), in_order=True)

    def _pairs(self, findings: Findings) -> Indices:
        groups = findings.words.groups(findings.captions)
        return np.unique(np.concatenate([groups[word] for word in self.probe.words(findings)]))

    def end(self, ubt: UBTState) -> str | None:
        """Judge the words; after the last group, unlearn all that was found so far.

        Where nothing was, some words are probed once more by themselves: those whose suspects are fragile, as a strong
        trigger takes many steps; where nothing was found still, gently those that stood out. Then that is the end.
        """
        self.gather(ubt)
        findings, chosen = ubt.findings, self.probe.chosen(ubt.findings).judged
        verdicts = self._judged(ubt, chosen)
        self._record(findings, verdicts, ubt.rounds_done)
        self._decide(findings, verdicts, ubt.rounds_done)
        turn = findings.turn
        if not turn.focus and turn.group + 1 < self.probe.groups(findings):
            turn.group += 1
            return "probe"
        if not turn.new and not turn.gently:
            fragile = {} if turn.focus else self._fragile(ubt)
            turn.focus, turn.gently = fragile or self._odd(ubt), not fragile
            if turn.focus:
                return "probe"
        findings.turn = Turn()
        return "repair" if turn.new else None

    def _latest(self, ubt: UBTState) -> list[dict[str, Any]]:
        """What the probe of many words has said of each in this round."""
        first: dict[int, dict[str, Any]] = {}
        for each in ubt.findings.verdicts:
            if each["round"] == ubt.rounds_done:
                first.setdefault(each["index"], each)  # what comes later is of the word by itself
        return list(first.values())

    def _odd(self, ubt: UBTState) -> dict[int, str]:
        """The foremost half of the words that stood out, and those that are accused, and by which evidence.

        By what speaks most against them, or by what fell farthest. Half, since words that are pushed together hinder
        each other.
        """
        findings, latest = ubt.findings, self._latest(ubt)
        out = standing_out([(each["index"], each["excess"], each["fell_by"]) for each in latest])
        foremost = dict(list(out.items())[: -(-len(out) // 2)])
        worst_first = sorted(latest, key=lambda each: each["p"])
        return self._at_most(foremost | accused(worst_first, least_variety(self.asked, len(findings.words))))

    def _fragile(self, ubt: UBTState) -> dict[int, str]:
        """The words with fragile suspects, and by which evidence these are.

        Of those whose suspects fell farthest, and by evidence that was absent so far of those that it suspects most: of
        a word with both, the former is the better one.
        """
        findings = ubt.findings
        groups = findings.words.groups(findings.captions)
        suspected = suspicions(self.probe.evidence, findings)
        out = standing_out([(each["index"], each["excess"], each["fell_by"]) for each in self._latest(ubt)])
        absent = [
            (word, piece.name)
            for piece in self.probe.absent
            for word in most_suspected(groups, suspected[piece.name], self.probe.count)
        ]

        def is_fragile(word: int, evidence: str) -> bool:
            only = {word: groups[word]}
            chosen = candidates(only, suspected, self.probe.count, 0.0, {word: evidence}).judged
            return bool(chosen) and self._fragility(ubt, chosen[0], groups) >= self.witness.min_fragility

        return self._at_most(
            {word: evidence for word, evidence in (*absent, *out.items()) if is_fragile(word, evidence)}
        )

    def _at_most(self, focus: dict[int, str]) -> dict[int, str]:
        """As many as are probed at once."""
        return dict(list(focus.items())[: self.probe.words_at_once])

    def _heading(self, findings: Findings, repaired: int) -> str:
        """Another one for each verdict, by which callbacks recognise that there is something new."""
        heading = "verify" if not repaired else f"verify {repaired + 1}"
        if findings.turn.focus:
            return f"{heading}, {'gently' if findings.turn.gently else 'closer'}"
        groups = self.probe.groups(findings)
        return heading if groups == 1 else f"{heading}, group {findings.turn.group + 1} of {groups}"

    def _judged(self, ubt: UBTState, chosen: Sequence[Judged]) -> list[WordVerdict]:
        """What the probe says of its words and, of those that it accuses, the second witness.

        The model in question is back in the encoder afterwards.
        """
        findings, seen = ubt.findings, ubt.findings.seen
        before, after = (
            np.nan_to_num(seen[f"{model}/word"], nan=-1).astype(np.int64) for model in ("poisoned", "probed")
        )
        groups = findings.words.groups(findings.captions)
        frequencies = np.array([len(group) for group in groups])
        least = _ANYTHING if findings.turn.gently else 0.0
        shares = {piece.name: piece.variety_share for piece in self.probe.evidence}
        verdicts = judge(chosen, self._fall(findings), before, after, frequencies, self.asked, shares, least)
        by = {(each.word, each.evidence): each for each in chosen}
        certain = self.witness.certain * (_GENTLY if findings.turn.gently else 1)
        ubt.return_to_answer()
        for index, verdict in enumerate(verdicts):
            if verdict.found:
                fragile = self._fragility(ubt, by[verdict.word, verdict.evidence], groups)
                verdicts[index] = verdict.witnessed(fragile, self.witness.min_fragility, certain)
        return verdicts

    def _fragility(self, ubt: UBTState, judged: Judged, groups: Sequence[Indices]) -> float:
        (changes,) = (piece.gentle for piece in self.probe.evidence if piece.name == judged.evidence)
        suspects, ordinary = (
            margins(ubt, judged.word, pairs, groups, changes)
            for pairs in (np.union1d(judged.pairs, judged.pushed), judged.others)
        )
        return ubt.agreed(fragility(suspects, ordinary))

    def _fall(self, findings: Findings) -> Scores:
        fall: Scores = findings.seen["poisoned"] - findings.seen["probed"]
        return fall

    def _decide(self, findings: Findings, verdicts: Sequence[WordVerdict], repaired: int) -> None:
        """Divide the pairs of the words that were found."""
        fall, groups = self._fall(findings), findings.words.groups(findings.captions)
        suspected = suspicions(self.probe.evidence, findings)
        if not repaired:
            # Of a pair with words of several groups, where it fell farthest.
            so_far = findings.suspicion.get("fall", np.full_like(fall, np.nan))
            findings.suspicion = {**suspected, "fall": np.fmax(so_far, fall)}
        findings.about = self._heading(findings, repaired)
        for verdict in verdicts:
            if verdict.found:
                findings.turn.new += 1
                group, suspicion = groups[verdict.word], suspected[verdict.evidence]
                self._add(findings, verdict.word, divide(group, fall, suspicion, self.retained_share))

    def _add(self, findings: Findings, word: int, decision: np.ndarray) -> None:
        """Adopt a word's decisions where they are more severe than those so far."""
        severer = decision > findings.decision
        findings.poisoned_with[severer & (decision == POISONED)] = word
        findings.decision = np.maximum(findings.decision, decision)
        if word not in findings.compromised:
            findings.compromised.append(word)

    def _record(self, findings: Findings, verdicts: Sequence[WordVerdict], repaired: int) -> None:
        spelt = findings.words.spelt
        findings.verdicts += [
            {"round": repaired, "index": verdict.word, **verdict._asdict(), "word": spelt[verdict.word]}
            for verdict in verdicts
        ]
        for verdict in sorted(verdicts, key=lambda each: each.p)[:3]:
            rank_zero_info(
                f"UBT verify: {spelt[verdict.word]!r:.40}, of its suspects that were not pushed {verdict.moved:.0%} "
                f"went to {verdict.variety:.1f} other words (p {verdict.p:.2g}), by {verdict.evidence}{_heard(verdict)}"
            )


def _heard(verdict: WordVerdict) -> str:
    """What the second witness said, where it was asked."""
    if verdict.fragility is None:
        return ""
    return f"; gently changed, these lose {verdict.fragility:.2f} of their lead{'' if verdict.found else ': acquitted'}"
