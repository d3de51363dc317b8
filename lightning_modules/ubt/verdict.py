"""Does a word hide a backdoor? Answers from arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import fisher_exact

from .candidates import Indices, Judged
from .findings import BENIGN, POISONED, SUSPICIOUS
from .scores import Scores, otsu


class WordVerdict(NamedTuple):
    """What a probe says of a word, by the piece of evidence that speaks most against it."""

    word: int
    evidence: str
    moved: float
    """Share of the judged pairs whose best word is another one after the probe, in [0, 1]."""
    moved_others: float
    """The same of ordinary pairs of the word."""
    p: float
    """Of Fisher's exact test that the former is no larger, times the number of tests (Bonferroni), at most 1."""
    variety: float
    """To how many words the judged pairs went: the exponential of the entropy of their new best words; 0 where none
    has moved."""
    fall: float
    """Mean fall in similarity of the judged pairs."""
    most: float
    """The greatest such fall by any piece of evidence."""
    found: bool
    """Whether the word hides a backdoor."""


def judge(
    judged: Sequence[Judged],
    fall: Scores,
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    words: int,
    significance: float,
    min_variety: float,
) -> list[WordVerdict]:
    """Judge every word by the pairs that were not pushed.

    Where pushing half of a word's suspects takes the other half along, they have something in common. That alone is no
    backdoor: near-duplicates go along too. But pictures with a trigger show anything, so they go back to many
    words, where odd pictures of a word go to its one neighbour. Only pairs whose best word was their own before count.

    Args:
        judged: As ``candidates`` gives them.
        fall: ``(N,)``, by how much the similarity of each pair fell; NaN where it is not known.
        before: ``(N,)``, the best word of each picture before the probe.
        after: ``(N,)``, the same after it.
        words: How many words there are.
        significance: Largest p at which a word is found.
        min_variety: Least variety at which it is; with few words, at most half of the other ones.

    Returns:
        For each word that is judged, what the evidence with the smallest p says, of equal ones the most variety.
    """
    asked = min(min_variety, (words - 1) / 2)
    by_word: dict[int, list[WordVerdict]] = {}
    for word, evidence, pairs, others in judged:
        mine, ordinary = (each[(before[each] == word) & ~np.isnan(fall[each])] for each in (pairs, others))
        moved, moved_others = after[mine] != word, after[ordinary] != word
        table = [
            [int(moved.sum()), int((~moved).sum())],
            [int(moved_others.sum()), int((~moved_others).sum())],
        ]
        p = min(1.0, float(fisher_exact(table, "greater").pvalue) * len(judged)) if len(mine) else 1.0
        variety = exp_entropy(after[mine][moved])
        by_word.setdefault(word, []).append(
            WordVerdict(
                word,
                evidence,
                _mean(moved),
                _mean(moved_others),
                p,
                variety,
                _mean(fall[mine]),
                _mean(fall[mine]),
                p <= significance and variety >= asked,
            )
        )
    return [min(each, key=_gravest)._replace(most=max(verdict.most for verdict in each)) for each in by_word.values()]


def standing_out(words: Sequence[int], falls: Sequence[float]) -> list[int]:
    """The words whose suspects fell farthest: an eighth of them, two at least.

    Args:
        words: Indices of words.
        falls: How far the suspects of each of them fell.
    """
    ordered = sorted(zip(falls, words, strict=True), key=lambda each: (-each[0], each[1]))
    return [word for _, word in ordered[: max(2, -(-len(words) // 8))]]


def _gravest(verdict: WordVerdict) -> tuple[bool, float, float]:
    return not verdict.found, verdict.p, -verdict.variety


def exp_entropy(labels: npt.NDArray[np.int64]) -> float:
    """The exponential of the entropy of some labels: k where k of them are equally frequent, 0 where there is none."""
    shares = np.unique(labels, return_counts=True)[1] / max(len(labels), 1)
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(labels) else 0.0


def divide(groups: Sequence[Indices], fall: Scores, retained_share: float) -> npt.NDArray[np.int8]:
    """Divide the data into poisoned, suspicious and benign pairs.

    The pairs of a found word whose similarity fell beyond Otsu's threshold are taken for poisoned. The farther half of
    them is to be unlearnt; the others, and what lies above the share that is retained, is suspicious: left out.

    Args:
        groups: For each found word the indices of its pairs.
        fall: ``(N,)``; NaN counts as suspicious in these groups.
        retained_share: Share of a word's pairs, those that fell least, that is retained at most, in (0, 1].

    Returns:
        ``(N,)`` decisions; everything outside of the groups is benign.
    """
    decision = np.full(len(fall), BENIGN, dtype=np.int8)
    for group in groups:
        known = group[~np.isnan(fall[group])]
        own = np.full(len(fall), BENIGN, dtype=np.int8)
        own[group] = SUSPICIOUS
        threshold, _ = otsu(fall[known])
        if len(known):
            retained = min(threshold, float(np.quantile(fall[known], retained_share)))
            own[known[fall[known] <= retained]] = BENIGN
        upper = known[fall[known] > threshold]
        if len(upper):
            own[upper[fall[upper] >= np.median(fall[upper])]] = POISONED
        decision = np.maximum(decision, own)
    return decision


def _mean(values: npt.NDArray[np.bool_] | Scores) -> float:
    return float(values.mean()) if len(values) else 0.0
