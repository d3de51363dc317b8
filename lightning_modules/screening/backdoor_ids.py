"""BackdoorIDS: how far the embedding jumps while a picture is masked step by step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from ...contracts import UserMistake
from .base import ClassTexts, FrozenCLIP, PictureDetector

_CELLS = 8
"""Cells of the grid of the mask, along a side."""


class BackdoorIDS(PictureDetector):
    """How far apart the two groups are into which the embeddings of ever more masked copies of a picture fall.

    Huang et al. (arXiv 2603.11664): a trigger holds the attention of the model until it is masked; then the embedding
    jumps to what the picture shows. The embeddings of a clean picture move smoothly. They are clustered by density
    (DBSCAN), and a picture whose embeddings form more than one cluster is flagged.

    Ratios, the radius and the least size of a cluster are not published in what was at hand (the abstract). Deviations,
    and what is ours: the score is the *largest radius* at which single linkage still has two groups of at least
    ``least`` copies each, which is DBSCAN without its noise, and with every radius at once; so the threshold can be
    conformal. Distances are ``1 - cos``. The mask grows cell by cell over a grid of 8 x 8, in the same random order for
    all pictures, and what is masked is the mean colour.

    Args:
        model: Model under test.
        texts: The classes, which it does not ask.
        copies: Masked copies, from none of the picture masked to ``largest``; the picture itself is the first.
        largest: Largest share of a picture that is masked, in (0, 1).
        least: Copies of a group.
        seed: Seed of the order of the cells.

    Raises:
        UserMistake: If there are fewer copies than two groups need, or the share is out of range.
    """

    name = "backdoor_ids"
    fewest_classes = 0

    def __init__(
        self,
        model: FrozenCLIP,
        texts: ClassTexts | None = None,
        copies: int = 12,
        largest: float = 0.8,
        least: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(model, texts)
        if least < 1 or copies < 2 * least:
            raise UserMistake(f"BackdoorIDS: {copies} copies are no two groups of {least} at least")
        if not 0 < largest < 1:
            raise UserMistake(f"BackdoorIDS: the largest masked share is {largest}, not in (0, 1)")
        self.least = least
        order = torch.randperm(_CELLS**2, generator=torch.Generator().manual_seed(seed))
        rank = torch.empty_like(order)
        rank[order] = torch.arange(_CELLS**2)
        counts = torch.linspace(0, largest * _CELLS**2, copies).round()
        self.kept = (rank.view(1, _CELLS, _CELLS) >= counts.view(-1, 1, 1)).float()
        """``(K, 8, 8)``, 1 where a copy shows the picture. What one copy masks, the next ones mask too."""

    def score(self, pictures: Tensor, features: Tensor) -> Tensor:
        """See ``PictureDetector``: in [0, 2]."""
        side = pictures.shape[-1]
        kept = torch.nn.functional.interpolate(self.kept[:, None], size=(side, side)).to(pictures)
        rows = [features, *(self.model.images(pictures * mask) for mask in kept[1:])]
        return torch.from_numpy(split_distance(torch.stack(rows, dim=1).float().cpu().numpy(), self.least))


def split_distance(features: npt.NDArray[np.float32], least: int) -> npt.NDArray[np.float32]:
    """The largest radius at which single linkage has two groups of a least size.

    Args:
        features: Features, ``(B, K, D)``, of unit length.
        least: Members of a group.

    Returns:
        ``(B,)`` float32, ``1 - cos``, in [0, 2]; 0 where there never are two such groups.
    """
    # What embeds as no number, as hostile weights may make it, is far from everything.
    distances = np.nan_to_num(np.clip(1 - features @ features.transpose(0, 2, 1), 0, 2), nan=2.0)
    return np.array([_last_merger(of_picture, least) for of_picture in distances], dtype=np.float32)


def _last_merger(distances: npt.NDArray[np.float32], least: int) -> float:
    """The distance at which the last two groups of a least size become one; ``distances`` is ``(K, K)``."""
    mergers = linkage(distances[np.triu_indices(len(distances), 1)], method="single")
    sizes = np.concatenate([np.ones(len(distances)), mergers[:, 3]])
    both = (sizes[mergers[:, :2].astype(int)] >= least).all(axis=1)
    return float(mergers[both, 2].max(initial=0.0))
