"""ROC AUC, average precision and precision at k of a ranking of pairs, against the pairs that are poisoned."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision


def ranking_figures(score: Tensor, truth: npt.NDArray[np.bool_], precision_at: Iterable[int]) -> dict[str, float]:
    """Measure a ranking. Pairs of the same score stand in no order: the precision is the mean over all of theirs.

    Args:
        score: Scores, ``(N,)``, higher is more suspicious; NaN is least suspicious.
        truth: Which pairs are poisoned, ``(N,)`` bool; at least one is, and one is not.
        precision_at: Values of k for precision at k.

    Returns:
        ``roc_auc``, ``average_precision`` and, for each k, ``precision_at_K``, of all pairs where there are fewer.
    """
    target = torch.from_numpy(truth).long()
    levels, level = torch.unique(score.nan_to_num(nan=-torch.inf), return_inverse=True)
    # As ranks: the metrics take what lies outside [0, 1] for logits, and saturate them.
    rank = level.double() / max(len(levels) - 1, 1)
    counts, hits = (torch.bincount(level, weights, len(levels)).flip(0) for weights in (None, target.double()))
    above = counts.cumsum(0) - counts
    figures = {"roc_auc": float(binary_auroc(rank, target))}
    figures["average_precision"] = float(binary_average_precision(rank, target))
    for k in precision_at:
        among = min(k, len(target))
        taken = ((among - above) / counts).clamp(0, 1)
        figures[f"precision_at_{k}"] = float((hits * taken).sum() / among)
    return figures
