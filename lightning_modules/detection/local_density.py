"""Outlier scores by local density: k-distance, SLOF and DAO."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...contracts import UserMistake

_NEAREST = 1e-3
"""Smallest distance that is resolved, between features of unit length: single precision loses the rest."""
_BLOCK = 4096


class DensityScores(NamedTuple):
    """Scores of N embeddings, ``(N,)`` float32 each, higher for those in sparser neighbourhoods."""

    k_distance: Tensor
    """Distance to the k-th nearest neighbour."""
    slof: Tensor
    """Simplified local outlier factor."""
    dao: Tensor
    """Logarithm of the dimensionality-aware outlier score."""


class LocalDensity:
    """Local density of embeddings among a reference set, whose neighbourhoods are worked out once.

    Huang et al. (arXiv 2502.01385) find that poisoned pairs of CLIP lie in sparse neighbourhoods, and score them by

    - *k-distance*: d_k(x), the distance to the k-th nearest neighbour.
    - *SLOF* (Schubert et al. 2014): the mean over the k nearest neighbours y of d_k(x) / d_k(y).
    - *DAO* (Anderberg et al., arXiv 2401.05453): the logarithm of the mean over them of
      ``(d_k(x) / d_k(y)) ** LID(y)``, where LID is the maximum-likelihood estimate of the local intrinsic
      dimensionality, ``-1 / mean(log(d_i / d_k))`` over the k nearest.

    Neighbours are looked for in the reference alone. So a reference with fewer than k poisoned pictures shows them
    as outliers; in one with more, they are each other's neighbours, and a dense cluster scores low. The authors' is a
    batch of 1,024 with k = 16. A picture that is in the reference is no neighbour of its own.

    Deviations from the authors' code (``backdoor_sample_detector/`` at 024f076): neighbours keep their indices in the
    reference, where theirs shift after the picture itself; SLOF and DAO take all distances k from the same kind of
    list, theirs counts a neighbour itself in its own; DAO is the logarithm of the mean, as the papers define it, theirs
    the mean of the logarithms; captions are not looked at.

    Args:
        reference: Features of the reference set, ``(M, D)``, of unit length.
        neighbours: k.

    Raises:
        UserMistake: If there are not more reference features than neighbours, or they are not finite.
    """

    def __init__(self, reference: Tensor, neighbours: int = 16) -> None:
        if neighbours < 1 or len(reference) <= neighbours:
            raise UserMistake(
                f"{len(reference)} embeddings are too few for local density with {neighbours} neighbours; "
                f"it takes at least 1 neighbour and {max(neighbours, 1) + 1} embeddings"
            )
        self.reference, self.neighbours = _checked(reference), neighbours
        # The density of the reference itself, each without itself, block by block.
        own = torch.arange(len(reference), device=reference.device)
        parts = [self._nearest(reference[indices], indices)[0] for indices in torch.split(own, _BLOCK)]
        distances = torch.cat(parts)
        self._k_distance = distances[:, -1]
        self._dimension = _intrinsic_dimension(distances)

    def __call__(self, features: Tensor, own: Tensor | None = None) -> DensityScores:
        """Score a block of features.

        Args:
            features: Features, ``(B, D)`` of unit length, on the reference's device.
            own: ``(B,)`` int64, the index of each in the reference, -1 for those that are not in it; None where none
                is.

        Returns:
            ``(B,)`` each; NaN where a feature is not finite, as to say so would be to wait for the device.
        """
        distances, indices = self._nearest(features, own)
        k_distance = distances[:, -1]
        ratios = k_distance[:, None] / self._k_distance[indices]
        powers = self._dimension[indices] * ratios.log()
        dao = powers.logsumexp(dim=1) - math.log(self.neighbours)
        return DensityScores(k_distance, ratios.mean(dim=1), dao)

    def _nearest(self, features: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distances ``(B, k)`` to the nearest of the reference, ascending, and their indices ``(B, k)``."""
        similarity = features.float() @ self.reference.float().T
        if own is not None:
            every = torch.arange(len(self.reference), device=features.device)
            similarity = similarity.masked_fill(own[:, None] == every, -torch.inf)
        nearest, indices = similarity.topk(self.neighbours, dim=1)
        return (2 - 2 * nearest).clamp(min=_NEAREST**2).sqrt(), indices


def local_density(
    features: Tensor, neighbours: int = 16, reference_size: int = 1024, seed: int = 0, block: int = _BLOCK
) -> DensityScores:
    """Score all embeddings against a random part of them.

    Memory beside the features is that of ``block * reference_size`` similarities; no matrix of all pairs is made.

    Args:
        features: Features, ``(N, D)`` of unit length.
        neighbours: k.
        reference_size: Size M of the reference; all where there are no more.
        seed: What the reference is drawn from.
        block: Features that are scored at once.

    Returns:
        ``(N,)`` each, on the CPU.

    Raises:
        UserMistake: As `LocalDensity`, and if any feature is not finite.
    """
    features = _checked(features)
    chosen = np.random.default_rng(seed).permutation(len(features))[:reference_size]
    indices = torch.from_numpy(np.sort(chosen)).to(features.device)
    own = torch.full((len(features),), -1, dtype=torch.int64, device=features.device)
    own[indices] = torch.arange(len(indices), device=features.device)
    density = LocalDensity(features[indices], neighbours)
    blocks = zip(torch.split(features, block), torch.split(own, block), strict=True)
    parts = [density(part, mine) for part, mine in blocks]
    return DensityScores(*(torch.cat(scores).cpu() for scores in zip(*parts, strict=True)))


def _intrinsic_dimension(distances: Tensor) -> Tensor:
    """LID by maximum likelihood, ``(N,)``, from ascending distances ``(N, k)``.

    Where all neighbours are equally far it would be infinite: it is clipped at what single precision resolves.
    """
    logarithms = (distances / distances[:, -1:]).log().mean(dim=1)
    return -1 / logarithms.clamp(max=-_NEAREST)


def _checked(features: Tensor) -> Tensor:
    if not torch.isfinite(features).all():
        raise UserMistake("embeddings have numbers that are not finite: is the model broken?")
    return features
