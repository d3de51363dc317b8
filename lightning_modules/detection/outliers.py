"""Outliers among the pairs of one word: spectral signatures and activation clustering."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .two_means import two_means


def spectral_signatures(features: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Score samples by the squared projection on the direction in which their group's features vary most.

    Tran et al. (arXiv 1811.00636, algorithm 1) score the samples of a class by ``((f_i - mean) . v)^2``, where v is the
    top right singular vector of the centred features. They then drop the highest ``1.5 epsilon n`` of *every* class,
    where epsilon, the share of poison, is given; a ranking needs neither. Here a group is the pairs of a word.

    Args:
        features: Features of all samples, ``(N, D)``.
        groups: Indices of the samples of each group, ``(n,)`` int64 each. A sample may be in several.

    Returns:
        ``(N,)`` float32 on the CPU, at least 0. A sample of several groups has the highest of its scores; a
        sample that is in no group of two or more has NaN.
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
    """Score the samples of a cluster that is unusually small beside the rest of its group.

    Chen et al. (arXiv 1811.03728): the features of a class are reduced to a few dimensions and clustered by 2-means;
    the smaller cluster is poison if it is small enough. Deviations: principal components stand in for the paper's
    independent ones, as in other public code; 2-means starts from the two sides of the first component, so that the
    result is deterministic; a group is the pairs of a word.

    Args:
        features: Features of all samples, ``(N, D)``.
        groups: As for `spectral_signatures`.
        components: Maximum number of principal components.
        largest_share: Share of the group, in (0, 0.5], below which the smaller cluster is suspected.

    Returns:
        ``(N,)`` float32 on the CPU: 1 minus the cluster's share for a sample of a suspected cluster, 0 for others. A
        sample of several groups has the highest of its scores; a sample that is in no group of two or more has NaN.
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
    """The right singular vectors of the largest singular values, ``(D, count)``, from the ``(D, D)`` scatter matrix."""
    vectors: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return vectors.flip(1)[:, :count]


def _smaller_cluster(points: Tensor) -> Tensor:
    """Which points are in the smaller of two clusters: ``(n,)`` bool on the CPU."""
    second = points[:, 0] > 0
    if not second.any() or second.all():  # all alike
        return torch.zeros(len(points), dtype=torch.bool)
    cluster = two_means(points, second)
    return cluster if 2 * cluster.sum() < len(cluster) else ~cluster
