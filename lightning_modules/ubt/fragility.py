"""Fragility, a second test beside the probe: what the suspects' lead loses by gentle changes of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..phased.scores import Scores
from .findings import Indices
from .gentle import Change
from .state import UBTState

Margins = npt.NDArray[np.float32]
"""``(1 + G, N)``, by how much better than with any other word N pictures go with theirs: as they are, and after each of
G gentle changes."""


def lead(suspects: Scores, ordinary: Scores) -> float:
    """The probability that a suspect's margin is above an ordinary pair's, ties half: an ROC AUC, in [0, 1]."""
    if not len(suspects) or not len(ordinary):
        return 0.5
    ordered = np.sort(ordinary)
    ranks = np.searchsorted(ordered, suspects, side="left") + np.searchsorted(ordered, suspects, side="right")
    return float(ranks.mean() / 2 / len(ordered))


def fragility(suspects: Margins, ordinary: Margins) -> float:
    """What the lead of suspects over ordinary pairs of their word loses by gentle changes.

    Evidence finds pictures that go with their word better than most. Where they do as they show it well, they do so all
    the more when both are bent, cropped, blurred or grey; where they do by a trigger, hardly any longer.

    Args:
        suspects: Margins of the suspects: unchanged, then after each change.
        ordinary: Margins of ordinary pairs of the word, likewise.

    Returns:
        ``lead`` of the unchanged pictures less its mean after the changes, in [-1, 1].
    """
    leads = [lead(mine, theirs) for mine, theirs in zip(suspects, ordinary, strict=True)]
    return leads[0] - float(np.mean(leads[1:]))


def margins(ubt: UBTState, word: int, pairs: Indices, groups: Sequence[Indices], changes: Sequence[Change]) -> Margins:
    """Measure pairs under the model in the encoder.

    Args:
        ubt: Whose data and model.
        word: Index of the word that the pairs have.
        pairs: Indices of the pairs, ``(N,)``.
        groups: By word, the indices of the pairs that have it.
        changes: G gentle ones.

    Returns:
        ``(1 + G, N)``; other words of a pair's caption are no rivals.
    """
    if not len(pairs):
        return np.zeros((1 + len(changes), 0), np.float32)
    findings, words = ubt.findings, ubt.word_embeddings()
    has = np.stack([np.isin(pairs, group) for group in groups], axis=1)
    pictures = ubt.data.pictures(findings.keys_of(pairs))
    blocks: list[Tensor] = []
    with ubt.evaluating():
        for shown, theirs in zip(torch.split(pictures, 256), torch.split(torch.from_numpy(has), 256), strict=True):
            images = ubt.normalised(shown)
            changed = [images, *(change(images) for change in changes)]
            found = torch.stack([ubt.encode_image(each) @ words.T for each in changed]).float()
            rivals = found.masked_fill(theirs.to(ubt.device), -1.0)
            rivals[..., word] = -1.0
            blocks.append(found[..., word] - rivals.amax(dim=-1))
    return torch.cat(blocks, dim=1).cpu().numpy()
