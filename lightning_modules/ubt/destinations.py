"""Statistics of where pushed pictures go: to more words than chance, and to how many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Counts = npt.NDArray[np.int64]
"""``(W,)``, how many pictures went to each word."""
_UNITS = 512
"""To how many parts of itself the greatest surprise that was seen is rounded."""
_DRAWS = 4096
"""Random samples of which the expected variety is the mean."""


def surprise_p(gone: Counts, stayed: int, others_gone: Counts, others_stayed: int) -> float:
    """Are some pictures less at home elsewhere than ordinary ones of their word?

    An exact permutation test. To go to a word is the more surprising the fewer of all pictures do, ``-log(share)``, and
    to stay is no surprise; the statistic is the sum over some of them. Without a difference, it is that of as many
    drawn from all.

    Args:
        gone: Where the pictures in question went.
        stayed: How many of them did not.
        others_gone: The same of ordinary pictures of the word.
        others_stayed: The same.

    Returns:
        The probability of as great a surprise as that, in [0, 1]; 1 where none has gone.
    """
    drawn, all_gone = int(gone.sum()) + stayed, gone + others_gone
    total = int(all_gone.sum()) + stayed + others_stayed
    went = all_gone > 0
    exact = np.zeros(len(gone))
    exact[went] = -np.log(all_gone[went] / total)
    if not (gone * exact).sum():
        return 1.0
    surprise = np.rint(exact * (_UNITS / (gone * exact).sum())).astype(np.int64)
    observed = int((gone * surprise).sum())
    kinds = {0: stayed + others_stayed}
    for each, count in zip(surprise[went].tolist(), all_gone[went].tolist(), strict=True):
        kinds[each] = kinds.get(each, 0) + count
    # ways[k, s]: in how many ways k of the pictures have a sum of s, or at least that in the last column.
    ways = np.zeros((drawn + 1, observed + 1))
    ways[0, 0], scale = 1.0, 0.0
    for each, count in kinds.items():
        more = np.zeros_like(ways)
        for chosen in range(min(count, drawn) + 1):
            before, added = ways[: drawn + 1 - chosen], min(chosen * each, observed)
            weight = np.exp(_log_choices(count, chosen) - _log_choices(count, min(count // 2, drawn)))
            more[chosen:, added:] += weight * before[:, : observed + 1 - added]
            if added:
                more[chosen:, observed] += weight * before[:, observed + 1 - added :].sum(axis=1)
        scale += _log_choices(count, min(count // 2, drawn))
        ways = more
    return min(1.0, float(ways[drawn, observed] * np.exp(scale - _log_choices(total, drawn))))


def exp_entropy(counts: Counts) -> float:
    """The exponential of the entropy of some counts: k where k of them are equal, 0 where there is nothing."""
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def expected_variety(frequencies: Counts, word: int, count: int) -> float:
    """To how many words pictures of anything would go back: the mean ``exp_entropy`` of as many drawn at random.

    Args:
        frequencies: Number of pictures of each word, ``(W,)``.
        word: The one that they are pushed from, which none goes to.
        count: How many are drawn.
    """
    others = frequencies.astype(np.float64)
    others[word] = 0
    if not count or not others.any():
        return 0.0
    drawn = np.random.default_rng(0).multinomial(count, others / others.sum(), size=_DRAWS)
    shares = drawn / count
    entropies = -np.where(drawn > 0, shares * np.log(np.maximum(shares, 1 / count)), 0).sum(axis=1)
    return float(np.exp(entropies).mean())


def _log_choices(count: int, chosen: int) -> float:
    return float(gammaln(count + 1) - gammaln(chosen + 1) - gammaln(count - chosen + 1))
