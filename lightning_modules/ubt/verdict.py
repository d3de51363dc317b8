"""Judge from arrays alone whether a word is the target of a backdoor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from ..phased.scores import Scores, otsu
from .candidates import Indices, Judged
from .destinations import Counts, exp_entropy, expected_variety, surprise_p
from .findings import BENIGN, POISONED, SUSPICIOUS

_ODD = 0.05
"""Largest p at which a word is worth a probe by itself, whatever the second witness says."""
_TIE = 1e-9
"""What a variety of a whole number of words may be off by."""
_PART = 8
"""Which part of the words is looked at by itself: a backdoor compromises few, and an eighth leaves room for several."""
_STANDING_OUT, _SUSPECTED = 2, 16
"""How many at least, of those that stood out in a probe, and of those whose pairs are suspected most: the next after
the first, and as many as a probe takes at once."""


class WordVerdict(NamedTuple):
    """What a probe says of a word, by the piece of evidence that speaks most against it."""

    word: int
    evidence: str
    moved: float
    """Share of the judged pairs whose best word is another one after the probe, in [0, 1]."""
    moved_others: float
    """The same of ordinary pairs of the word."""
    p: float
    """Of ``surprise_p``, times the number of tests (Bonferroni), at most 1."""
    variety: float
    """To how many words the judged pairs went: the exponential of the entropy of their new best words; 0 where none
    has moved."""
    fall: float
    """Mean fall in similarity of the judged pairs."""
    excess: float
    """How much farther than ordinary pairs the suspects by any piece of evidence without a ``variety_share`` fell."""
    fell_by: str
    """That piece of evidence; empty where there is none."""
    found: bool
    """Whether the word hides a backdoor."""
    fragility: float | None = None
    """What the lead of its suspects over ordinary pairs loses by gentle changes (``fragility``), in [-1, 1]; None where
    the probe alone has acquitted it."""

    def witnessed(self, fragility: float, least: float, certain: float) -> WordVerdict:
        """The verdict once a second witness was heard.

        Args:
            fragility: What it says.
            least: The fragility from which on the word stays found.
            certain: It stays found with a p up to this, whatever the witness says.
        """
        return self._replace(fragility=fragility, found=self.found and (fragility >= least or self.p <= certain))


class Judgement(NamedTuple):
    """When a word is found to hide a backdoor."""

    significance: float
    """Largest p at which it is."""
    min_moved: float
    """Least share of the judged pairs that have moved."""
    min_variety: float
    """What the variety has to be above; with few words, half of the other ones is enough."""


def judge(
    judged: Sequence[Judged],
    fall: Scores,
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    frequencies: Counts,
    asked: Judgement,
    variety_shares: Mapping[str, float],
    least_share: float = 0.0,
) -> list[WordVerdict]:
    """Judge every word by the pairs that were not pushed.

    Where pushing half of a word's suspects moves the other half too, they have something in common. That alone is no
    backdoor: near-duplicates move together too. But under a trigger there is anything, so pictures with one go back to
    many words, and to words that ordinary pictures of theirs do not go to, where odd pictures of a word go to its one
    neighbour. Only pairs whose best word was their own before count. Foremost suspects are the purest, where few are
    poisoned; where many are, those of twice as many ranks say far more: both are tested.

    Args:
        judged: As ``candidates`` gives them.
        fall: Fall in similarity of each pair, ``(N,)``; NaN where it is not known.
        before: Best word of each picture before the probe, ``(N,)``.
        after: The same after the probe, ``(N,)``.
        frequencies: Number of captions with each word, ``(W,)``.
        asked: When a word is found.
        variety_shares: By piece of evidence, the least variety as a share of that of pictures of anything
            (``Evidence.variety_share``).
        least_share: The least that is asked of suspects by any piece of evidence, likewise.

    Returns:
        For each word that is judged, what the evidence with the smallest p says, of equal ones the most variety; of
        evidence by which it is found, where there is any.
    """
    tests = [(kind, kind.pairs) for kind in judged]
    tests += [(kind, np.append(kind.pairs, kind.next)) for kind in judged if len(kind.next)]
    by_word: dict[int, list[WordVerdict]] = {}
    for kind, pairs in tests:
        share = max(variety_shares[kind.evidence], least_share)
        verdict = _verdict(kind, pairs, fall, before, after, frequencies, asked, share, len(tests))
        by_word.setdefault(kind.word, []).append(verdict)
    verdicts = []
    for each in by_word.values():
        farthest = max(
            ((verdict.excess, verdict.evidence) for verdict in each if not variety_shares[verdict.evidence]),
            default=(0.0, ""),
        )
        verdicts.append(min(each, key=_gravest)._replace(excess=farthest[0], fell_by=farthest[1]))
    return verdicts


def _verdict(
    judged: Judged,
    pairs: Indices,
    fall: Scores,
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    frequencies: Counts,
    asked: Judgement,
    variety_share: float,
    tests: int,
) -> WordVerdict:
    """What some of the suspects say, of which ``tests`` are made in all; for the others see ``judge``."""
    word, words = judged.word, len(frequencies)
    mine, ordinary = (each[(before[each] == word) & ~np.isnan(fall[each])] for each in (pairs, judged.others))
    gone, others_gone = (np.bincount(after[each][after[each] != word], minlength=words) for each in (mine, ordinary))
    moved, others_moved = int(gone.sum()), int(others_gone.sum())
    p = min(1.0, surprise_p(gone, len(mine) - moved, others_gone, len(ordinary) - others_moved) * tests)
    variety, share = exp_entropy(gone), moved / max(len(mine), 1)
    found = p <= asked.significance and share >= asked.min_moved and _is_varied(variety, asked, words)
    if found and variety_share:
        found = variety >= variety_share * expected_variety(frequencies, word, moved)
    others_share, fallen = others_moved / max(len(ordinary), 1), _mean(fall[mine])
    excess, name = fallen - _mean(fall[ordinary]), judged.evidence
    return WordVerdict(word, name, share, others_share, p, variety, fallen, excess, name, found)


def least_variety(asked: Judgement, words: int) -> float:
    """The variety from which on suspects are odd: with few words, at most half of the other ones."""
    return min(asked.min_variety, (words - 1) / 2)


def _is_varied(variety: float, asked: Judgement, words: int) -> bool:
    """Whether suspects went to more words than odd pictures of one do, which go to a neighbour, or to two alike."""
    return variety > asked.min_variety + _TIE or (words - 1) / 2 <= min(variety, asked.min_variety)


def accused(verdicts: Iterable[Mapping[str, Any]], least: float) -> dict[int, str]:
    """The words that a probe has found odd, if not odd enough.

    Args:
        verdicts: ``WordVerdict`` as plain data, with the word's ``index``.
        least: Variety below which a word's suspects went to its neighbours alone.

    Returns:
        By word with a p up to .05, the evidence that speaks most against it.
    """
    return {each["index"]: each["evidence"] for each in verdicts if each["p"] <= _ODD and each["variety"] >= least}


def standing_out(fell: Sequence[tuple[int, float, str]]) -> dict[int, str]:
    """The words whose suspects fell farthest beyond ordinary pairs: an eighth of them, two at least.

    Args:
        fell: For each word its index, ``WordVerdict.excess`` and ``WordVerdict.fell_by``.

    Returns:
        By word, the piece of evidence whose suspects did, the farthest first.
    """
    ordered = sorted((each for each in fell if each[2]), key=lambda each: (-each[1], each[0]))
    return {word: evidence for word, _, evidence in ordered[: max(_STANDING_OUT, -(-len(ordered) // _PART))]}


def most_suspected(groups: Sequence[Indices], suspicion: Scores, count: int) -> list[int]:
    """The words whose suspects a piece of evidence suspects most: an eighth of them, sixteen at least.

    Args:
        groups: By word, the indices of its pairs.
        suspicion: ``(N,)``, of that piece of evidence; pairs with NaN are not suspected.
        count: Suspects of each word.

    Returns:
        Indices of words, the most suspected first.
    """
    means = []
    for group in groups:
        known = suspicion[group][~np.isnan(suspicion[group])]
        means.append(_mean(np.sort(known)[::-1][:count]) if len(known) else -np.inf)
    ordered = np.argsort(-np.array(means), kind="stable")
    return [int(word) for word in ordered[: max(_SUSPECTED, -(-len(groups) // _PART))]]


def _gravest(verdict: WordVerdict) -> tuple[bool, float, float]:
    return not verdict.found, verdict.p, -verdict.variety


def divide(group: Indices, fall: Scores, suspicion: Scores, retained_share: float) -> npt.NDArray[np.int8]:
    """Divide the pairs of a word that hides a backdoor into poisoned, suspicious and benign ones.

    How many are poisoned is decided by Otsu's threshold of the fall. Which ones, by the fall and by the evidence that
    found the word, the mean of both ranks: either alone puts odd benign pictures among them. The foremost half of as
    many is to be unlearnt; the others, and what is beyond the share that is retained, is suspicious: left out.

    Args:
        group: The indices of the word's pairs.
        fall: ``(N,)``; a pair with NaN is suspicious.
        suspicion: ``(N,)``, of that piece of evidence, the more the higher; NaN likewise.
        retained_share: Share of the word's pairs, the least suspicious ones, that is retained at most, in (0, 1].

    Returns:
        ``(N,)`` decisions; everything outside of the group is benign.
    """
    decision = np.full(len(fall), BENIGN, dtype=np.int8)
    decision[group] = SUSPICIOUS
    known = group[~np.isnan(fall[group]) & ~np.isnan(suspicion[group])]
    if not len(known):
        return decision
    threshold, _ = otsu(fall[known])
    fallen = int((fall[known] > threshold).sum())
    ordered = known[np.argsort(-(rankdata(fall[known]) + rankdata(suspicion[known])), kind="stable")]
    retained = min(round(retained_share * len(known)), len(known) - fallen) if fallen else len(known)
    decision[ordered[len(known) - retained :]] = BENIGN
    decision[ordered[: -(-fallen // 2)]] = POISONED
    return decision


def _mean(values: Scores) -> float:
    return float(values.mean()) if len(values) else 0.0
