"""Conformal p values: thresholds with a stated rate of false alarms, for any score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def conformal_p(scores: npt.ArrayLike, reference: npt.ArrayLike) -> Numbers:
    """Conformal p values against clean pictures: ``(1 + #{reference >= score}) / (n + 1)``.

    Where a clean picture is drawn as the reference was, ``P(p <= a) <= a`` for every a, with any score and any n (Vovk
    et al., *Algorithmic Learning in a Random World*, 2005). It fails where it was not: near-duplicates of one picture
    enter as many.

    Args:
        scores: Scores, ``(N,)``, the more suspicious the higher.
        reference: ``(n,)``, scores of pictures that are known to be clean.

    Returns:
        ``(N,)``, in [1 / (n + 1), 1].
    """
    known = np.sort(np.asarray(reference, dtype=np.float64))
    at_least = len(known) - np.searchsorted(known, np.asarray(scores, dtype=np.float64), side="left")
    return (1 + at_least) / (len(known) + 1)


def rank_p(scores: npt.ArrayLike) -> Numbers:
    """What can be said where no picture is known to be clean: the share of all that are at least as suspicious.

    Of N pictures at most ``a N`` have a p up to a, be they clean or not: that bounds the false alarms, and says nothing
    of whether any picture is poisoned.

    Args:
        scores: Scores, ``(N,)``, the more suspicious the higher.

    Returns:
        ``(N,)``, in [1 / N, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    ordered = np.sort(values)
    return (len(values) - np.searchsorted(ordered, values, side="left")) / len(values)


def any_p(each: npt.ArrayLike) -> Numbers:
    """One p value for several detectors, whatever they have in common: the least of theirs times their number.

    Args:
        each: P values of K detectors, ``(K, N)``.

    Returns:
        ``(N,)``, at most 1 (Bonferroni).
    """
    values = np.asarray(each, dtype=np.float64)
    joint: Numbers = np.minimum(len(values) * values.min(axis=0), 1.0)
    return joint
