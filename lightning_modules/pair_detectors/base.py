"""The base class of detectors of poisoned pairs, and what they are told of the pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...contracts import UserMistake
from ..phased.scores import Scores

_TRIAL = 2048
"""Pairs that are made up: more than neighbours are looked for."""


@dataclass(frozen=True)
class RankedPairs:
    """N training pairs as the model sees them. Which of them are poisoned is not among it."""

    keys: Sequence[str]
    """N keys."""
    features: Tensor
    """Features of the pictures, ``(N, D)``, of unit length, on the CPU."""
    similarity: Scores
    """Of picture and caption, ``(N,)``, cosines in [-1, 1]."""
    word: Tensor
    """Index of the word of its caption that each picture goes with best, ``(N,)`` int64; -1 for none."""
    seed: int = 0
    """What a detector that draws anything draws from."""

    def of_words(self) -> list[Tensor]:
        """The indices of the pairs of each word, ``(n,)`` int64 each."""
        return [(self.word == each).nonzero()[:, 0] for each in sorted(set(self.word.tolist())) if each >= 0]


class PairDetector(ABC):
    """Scores how suspicious each pair is, without ground truth. ``model.detectors`` takes a list of them.

    A subclass sets ``columns`` and writes ``scores``.
    """

    columns: ClassVar[tuple[str, ...]]
    """Names of its scores in ``scores.csv`` and ``detection.csv``; no two detectors of a run may share one."""

    @abstractmethod
    def scores(self, pairs: RankedPairs) -> Sequence[npt.ArrayLike]:
        """Score all pairs.

        Args:
            pairs: They.

        Returns:
            ``(N,)`` for each of ``columns``, the more suspicious the higher, NaN where it cannot say.
        """


def check_detectors(detectors: Sequence[PairDetector], taken: Sequence[str], dimension: int) -> None:
    """Ask detectors about pairs that are made up, so that a mistake shows before anything is trained.

    Args:
        detectors: They.
        taken: Columns that are others' already.
        dimension: D of the features.

    Raises:
        UserMistake: If a column is there twice, or what a detector returns is not one score a pair and column.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(_TRIAL, dimension, generator=generator), dim=1)
    similarity = np.linspace(-1, 1, _TRIAL, dtype=np.float32)
    pairs = RankedPairs([str(key) for key in range(_TRIAL)], features, similarity, torch.arange(_TRIAL) % 3 - 1)
    columns = list(taken)
    for detector in detectors:
        asked_scores(detector, pairs)
        for column in detector.columns:
            if column in columns:
                raise UserMistake(f"model.detectors: there are two scores with the name {column}")
            columns.append(column)


def asked_scores(detector: PairDetector, pairs: RankedPairs) -> dict[str, Scores]:
    """Ask a detector for its scores.

    Args:
        detector: It.
        pairs: N pairs.

    Returns:
        By column ``(N,)`` float32.

    Raises:
        UserMistake: If it does not return one score a pair and column.
    """
    name = type(detector).__name__
    columns = getattr(detector, "columns", ())
    if not columns or isinstance(columns, str):
        raise UserMistake(f"model.detectors: {name} has no tuple of column names: columns = ('my_score',)")
    answer = detector.scores(pairs)
    scores = [_numbers(score) for score in answer]
    shapes = [score.shape for score in scores]
    if shapes != [(len(pairs.keys),)] * len(columns):
        raise UserMistake(
            f"model.detectors: {name} returned {shapes} for {len(pairs.keys):,} pairs, "
            f"not {len(columns)} x ({len(pairs.keys)},)"
        )
    return dict(zip(columns, scores, strict=True))


def _numbers(score: Any) -> Scores:
    return np.asarray(score.detach().cpu() if isinstance(score, Tensor) else score, dtype=np.float32)
