"""Outliers among the pairs of one word: spectral signatures and activation clustering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

_ROUNDS = 100
"""Rounds of 2-means."""


def spectral_signatures(features: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Squared projection on the direction in which the features of a group vary most.

    Tran et al. (arXiv 1811.00636, algorithm 1) score the samples of a class by ``((f_i - mean) . v)^2``, where v is the
    top right singular vector of the centred features. They then drop the highest ``1.5 epsilon n`` of *every* class,
    for a share epsilon that they are given: a ranking needs neither. Here the groups are those of a word.

    Args:
        features: ``(N, D)``.
        groups: Indices of the samples of each group, ``(n,)`` int64 each; a sample may be in several.

    Returns:
        ``(N,)`` float32 on the CPU, at least 0: of several groups the highest; NaN for a sample of none, and for a
        group of fewer than two.
    """
    scores = torch.full((len(features),), torch.nan)
    for group in groups:
        if len(group) < 2:
            continue
        centred = _centred(features[group.to(features.device)])
        projected = centred @ _directions(centred, 1)
        scores[group.cpu()] = torch.fmax(scores[group.cpu()], projected[:, 0].square().float().cpu())
    return scores


def activation_clustering(
    features: Tensor, groups: Sequence[Tensor], components: int = 10, largest_share: float = 0.35
) -> Tensor:
    """How small the cluster is that a sample is in, where its group falls into two of unlike size.

    Chen et al. (arXiv 1811.03728): the features of a class are reduced to a few dimensions and clustered by 2-means;
    the smaller cluster is poison if it is small enough. Deviations: principal components stand in for the paper's
    independent ones, as in other public code; 2-means begins with the two sides of the first component, so that the
    result is the same each time; the groups are those of a word.

    Args:
        features: ``(N, D)``.
        groups: As for `spectral_signatures`.
        components: Principal components that are kept, at most.
        largest_share: The smaller cluster is suspected below this share of its group, in (0, 0.5].

    Returns:
        ``(N,)`` float32 on the CPU: for a sample of the smaller cluster of a suspected group 1 less its share, 0 for
        other samples; of several groups the highest; NaN for a sample of none, and for a group of fewer than two.
    """
    scores = torch.full((len(features),), torch.nan)
    for group in groups:
        if len(group) < 2:
            continue
        centred = _centred(features[group.to(features.device)])
        smaller = _smaller_cluster(centred @ _directions(centred, components))
        share = float(smaller.float().mean())
        score = (1 - share) * smaller.float() if share < largest_share else torch.zeros(len(group))
        scores[group.cpu()] = torch.fmax(scores[group.cpu()], score)
    return scores


def _centred(features: Tensor) -> Tensor:
    return features.double() - features.double().mean(dim=0)


def _directions(centred: Tensor, count: int) -> Tensor:
    """The right singular vectors of the largest singular values, ``(D, count)``, from the D x D scatter."""
    vectors: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return vectors.flip(1)[:, :count]


def _smaller_cluster(points: Tensor) -> Tensor:
    """The members of the smaller of two clusters: ``(n,)`` bool on the CPU."""
    found = points.cpu().numpy()
    second = found[:, 0] > 0
    if not second.any() or second.all():  # all alike
        return torch.zeros(len(found), dtype=torch.bool)
    centres = np.stack([found[~second].mean(axis=0), found[second].mean(axis=0)])
    _, label = kmeans2(found, centres, iter=_ROUNDS, minit="matrix")
    smaller = int(np.bincount(label, minlength=2).argmin())
    return torch.from_numpy(label == smaller)
