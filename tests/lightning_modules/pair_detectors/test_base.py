"""What a detector of pairs is told, and what it has to answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from untrigger.contracts import UserMistake
from untrigger.lightning_modules import PairDetector, PairDetectors, RankedPairs
from untrigger.lightning_modules.pair_detectors import NeighbourDensity, usual_detectors
from untrigger.lightning_modules.pair_detectors.base import asked_scores

COUNT = 60


def pairs() -> RankedPairs:
    features = torch.nn.functional.normalize(torch.randn(COUNT, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    word = torch.tensor([0] * 30 + [2] * 28 + [-1] * 2)
    return RankedPairs([str(key) for key in range(COUNT)], features, np.linspace(-1, 1, COUNT, dtype=np.float32), word)


class FarFromWord(PairDetector):
    """Distance to the mean of the word."""

    columns = ("far_from_word",)

    def scores(self, pairs: RankedPairs) -> Any:
        far = torch.full((len(pairs.keys),), torch.nan)
        for own in pairs.of_words():
            far[own] = (pairs.features[own] - pairs.features[own].mean(dim=0)).norm(dim=1)
        return [far]


def test_pairs_of_a_word_are_told_and_those_without_one_are_in_none() -> None:
    assert [own.tolist() for own in pairs().of_words()] == [list(range(30)), list(range(30, 58))]


def test_the_usual_ones_score_every_pair_by_the_order_of_what_they_suspect() -> None:
    found = {name: score for each in usual_detectors() for name, score in asked_scores(each, pairs()).items()}
    assert all(score.shape == (COUNT,) and score.dtype == np.float32 for score in found.values())
    assert found["low_similarity"].argmax() == found["gaussian_mixture"].argmax() == 0  # it fits its caption least
    for name in ("spectral_signatures", "activation_clustering"):
        assert np.isnan(found[name]).nonzero()[0].tolist() == [58, 59]
    distances = (2 - 2 * pairs().features @ pairs().features.T).clamp(min=0).sqrt()
    np.testing.assert_allclose(found["k_distance"], distances.sort(dim=1).values[:, 16], atol=1e-3)


def test_ones_own_stands_among_the_scores() -> None:
    module = PairDetectors("small:nano-32", isolation_epochs=0, evidence=[], detectors=[FarFromWord()])
    module.rank(list(pairs().keys), pairs().features, pairs().word, {"similarity": pairs().similarity})
    assert list(module.scores) == ["far_from_word"]
    assert np.isfinite(module.scores["far_from_word"][:58]).all()
    assert "detectors" not in module.hparams


class TooFew(FarFromWord):
    def scores(self, pairs: RankedPairs) -> Any:
        return [score[1:] for score in super().scores(pairs)]


class Nameless(FarFromWord):
    columns = "far_from_word"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (TooFew(), r"TooFew returned \[\(2047,\)\] for 2,048 pairs, not 1 x \(2048,\)"),
        (Nameless(), "Nameless has no tuple of column names"),
    ],
)
def test_a_wrong_answer_is_told_before_anything_is_trained(detector: PairDetector, message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        PairDetectors("small:nano-32", detectors=[detector])


@pytest.mark.parametrize(("neighbours", "size"), [(0, 1024), (16, 16)])
def test_neighbours_are_fewer_than_those_among_whom_they_are_looked_for(neighbours: int, size: int) -> None:
    with pytest.raises(UserMistake, match="it takes at least 1 neighbour and more pairs than neighbours"):
        NeighbourDensity(neighbours, size)
