"""The pairs that a probe pushes, and those that it judges by."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..phased.scores import Scores

Indices = npt.NDArray[np.int64]
_PART = 4
"""A word's suspects are at most this part of its pairs, and ordinary ones come from the rest, so that even of a small
word most pairs are ordinary."""
_LEAST = 2 * _PART
"""Pairs that a word needs: of a part of fewer there are not two, one to push and one to judge."""
_ORDINARY = 256
"""Ordinary pairs of a word, at most. The variance of a rank test of m suspects and n of them goes with
(m + n + 1) / (m n): beside 16 suspects, any more would take 6 % off it at most."""


class Judged(NamedTuple):
    """Pairs by which a word is judged, by one piece of evidence."""

    word: int
    """Index of the word."""
    evidence: str
    pairs: Indices
    """The suspicious ones that are not pushed."""
    others: Indices
    """Ordinary ones of the same word."""
    pushed: Indices
    """The suspicious ones that are."""
    next: Indices
    """Those of as many further ranks that are not pushed either. Where many are poisoned, they tell more."""


class Candidates(NamedTuple):
    """The most suspicious pairs of every word, in two halves."""

    pushed: Indices
    """``(P,)``, the pairs that are pushed from their word; a pair of several words may be there for each."""
    words: Indices
    """``(P,)``, the word that each of them is pushed from."""
    judged: list[Judged]
    doubtful: Indices
    """Those that are not held where they are, as they may well be poisoned."""


def candidates(
    groups: Mapping[int, Indices],
    suspicion: Mapping[str, Scores],
    count: int,
    doubtful_share: float,
    only: Mapping[int, str] | None = None,
    judged_only: Collection[str] = (),
    seed: Sequence[int] = (0,),
) -> Candidates:
    """Choose the candidates of a probe.

    Each piece of evidence ranks the pairs of each word by itself, so that what differs between words does not count.
    Of the first ``count``, those in odd ranks (the 1st, 3rd, ...) are pushed and the others judged; one that another
    piece of evidence has chosen already stays what it is.

    Args:
        groups: By word, the indices of the pairs whose caption has it.
        suspicion: By the name of a piece of evidence ``(N,)``, higher is more suspicious; NaN is never chosen.
        count: Pairs for each word and piece of evidence; at most a quarter of the word's.
        doubtful_share: Share of each ranking that is not held, in [0, 1).
        only: By word, the piece of evidence that alone is asked; all are unless given.
        judged_only: Names of evidence none of whose suspects is pushed, unless for another piece of evidence.
        seed: Seed of the draw of ordinary pairs.

    Returns:
        The candidates. Words with fewer than eight pairs have none.
    """
    pushed: list[Indices] = []
    words: list[Indices] = []
    judged: list[Judged] = []
    is_doubtful = np.zeros(max((len(scores) for scores in suspicion.values()), default=0), dtype=np.bool_)
    for word, group in groups.items():
        if len(group) < _LEAST:
            continue
        asked = suspicion if only is None else {only[word]: suspicion[only[word]]}
        rankings = {name: _ranked(group, scores) for name, scores in asked.items()}
        most = min(count, len(group) // _PART)
        role: dict[int, bool] = {}
        # Evidence that pushes comes first, so that it pushes the same pairs whatever else there is.
        for name in sorted(rankings, key=lambda name: name in judged_only):
            is_doubtful[rankings[name][: int(doubtful_share * len(rankings[name]))]] = True
            for index, pair in enumerate(rankings[name][:most].tolist()):
                role.setdefault(pair, name not in judged_only and index % 2 == 0)
        chosen = np.array(sorted(pair for pair, is_chosen in role.items() if is_chosen), dtype=np.int64)
        pushed.append(chosen)
        words.append(np.full(len(chosen), word))
        generator = np.random.default_rng((*seed, word))
        for name, ranking in rankings.items():
            rest = ranking[max(most, len(ranking) // _PART) :]
            others = generator.choice(rest, min(len(rest), _ORDINARY), replace=False)
            is_pushed = np.array([role[pair] for pair in ranking[:most].tolist()], dtype=np.bool_)
            foremost, deeper = ranking[:most], ranking[most : min(2 * most, len(ranking) // _PART)]
            deeper = deeper[[role.get(pair) is not True for pair in deeper.tolist()]]
            judged.append(Judged(word, name, foremost[~is_pushed], np.sort(others), foremost[is_pushed], deeper))
    empty = np.zeros(0, dtype=np.int64)
    every = np.concatenate([empty, *pushed])
    is_doubtful[np.concatenate([every, *(pairs for each in judged for pairs in (each.pairs, each.next))])] = True
    return Candidates(every, np.concatenate([empty, *words]), judged, np.flatnonzero(is_doubtful))


def _ranked(group: Indices, scores: Scores) -> Indices:
    """The pairs of a group, the most suspicious first; of equal ones the earlier."""
    known = group[~np.isnan(scores[group])]
    return known[np.argsort(-scores[known].astype(np.float64), kind="stable")]
