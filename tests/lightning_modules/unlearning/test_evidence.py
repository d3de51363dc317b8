from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from untrigger.contracts import ImageTextBatch, UserMistake
from untrigger.lightning_modules import (
    BlurFragility,
    NegativeRobustness,
    OverfittedSimilarity,
    RandomSuspicion,
    SimilarityGain,
)
from untrigger.lightning_modules.unlearning.evidence import in_turn

BEFORE, AFTER = np.array([0.1, 0.5, 0.3], np.float32), np.array([0.6, 0.4, 0.3], np.float32)


def test_similarity_and_gain_are_of_the_copy() -> None:
    seen = {"poisoned": BEFORE, "overfitted": AFTER}
    assert OverfittedSimilarity().suspicion(seen) is AFTER
    assert SimilarityGain().suspicion(seen) == pytest.approx([0.5, -0.1, 0.0])


def test_fine_detail_does_not_survive_the_blur_and_coarse_does() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, ::2, ::2] = 1  # a fine grid
    images[1, :, :16] = 1  # one half
    batch: ImageTextBatch = {"key": ["fine", "coarse"], "image": images, "tokens": torch.zeros(2, 4).long()}

    def contrast(pictures: Tensor) -> Tensor:
        return pictures.flatten(1).std(dim=1)

    evidence = BlurFragility()
    assert evidence.observe("overfitted", batch, contrast) is None
    blurred = evidence.observe("poisoned", batch, contrast)
    assert blurred is not None
    seen = {"poisoned": contrast(images).numpy(), "BlurFragility/poisoned": blurred.numpy()}
    fine, coarse = evidence.suspicion(seen)
    assert fine > 0.2 > 0.1 > coarse


def test_the_next_coarser_blur_takes_waves_that_a_fine_one_leaves() -> None:
    waves = torch.sin(2 * torch.pi * 6 * torch.arange(32) / 32).expand(1, 3, 32, 32)  # SIG's
    batch: ImageTextBatch = {"key": ["wave"], "image": waves, "tokens": torch.zeros(1, 4).long()}
    fine = BlurFragility()
    coarse = fine.coarser()
    assert isinstance(coarse, BlurFragility)
    assert (coarse.sigma, coarse.name, fine.name) == (1 / 16, "BlurFragility-0.0625", "BlurFragility")
    left = {}
    for evidence in (fine, coarse):
        blurred = evidence.observe("poisoned", batch, lambda pictures: pictures.flatten(1).std(dim=1))
        assert blurred is not None
        left[evidence.name] = float(blurred) / float(waves.std())
    assert left["BlurFragility"] > 0.4 > 0.2 > left["BlurFragility-0.0625"]


def test_what_knows_no_scales_is_its_own_next() -> None:
    evidence = SimilarityGain()
    assert evidence.coarser() is evidence


def test_contours_survive_in_a_negative_and_colour_does_not() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, :16] = 1  # a contour
    images[1] = 1  # a colour
    batch: ImageTextBatch = {"key": ["contour", "colour"], "image": images, "tokens": torch.zeros(2, 4).long()}

    def similarity(pictures: Tensor) -> Tensor:
        contour = pictures.flatten(1).std(dim=1) > 0.1
        return torch.where(contour, 0.5, pictures.mean(dim=(1, 2, 3)).clamp(0, 1))

    evidence = NegativeRobustness()
    assert evidence.among_words
    assert evidence.observe("overfitted", batch, similarity) is None
    negative = evidence.observe("poisoned", batch, similarity)
    assert negative is not None
    seen = {"poisoned": similarity(images).numpy(), "NegativeRobustness/poisoned": negative.numpy()}
    assert evidence.suspicion(seen) == pytest.approx([0.0, -1.0])
    assert NegativeRobustness(-0.5).name == "NegativeRobustness-0.5"


def test_evidence_is_weighed_together_then_coarser_then_one_by_one() -> None:
    gain, blur, negative = SimilarityGain(), BlurFragility(), NegativeRobustness()
    names = [[piece.name for piece in pieces] for pieces in in_turn([gain, blur], [blur, negative])]
    assert names == [
        ["SimilarityGain", "BlurFragility"],
        ["SimilarityGain", "BlurFragility-0.0625"],
        ["BlurFragility"],
        ["NegativeRobustness"],
    ]
    assert in_turn([gain], [negative]) == [[gain], [negative]]
    assert in_turn([gain], []) == [[gain]]
    assert in_turn([negative], [negative, gain]) == [[negative], [gain]]
    with pytest.raises(UserMistake, match="two of one name: SimilarityGain, SimilarityGain"):
        in_turn([gain, SimilarityGain()], [])


def test_random_suspicion_knows_nothing_and_is_the_same_again() -> None:
    seen = {"poisoned": np.arange(1000, dtype=np.float32)}
    first, again, other = (RandomSuspicion(seed).suspicion(seen) for seed in (0, 0, 1))
    assert (first == again).all()
    assert abs(np.corrcoef(first, seen["poisoned"])[0, 1]) < 0.1
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.1


def test_a_blur_of_nothing_is_a_mistake() -> None:
    with pytest.raises(UserMistake, match="not above 0"):
        BlurFragility(0.0)


@pytest.mark.parametrize("factor", [0.0, 0.25, -1.5])
def test_no_negative_and_more_than_all_contrast_are_mistakes(factor: float) -> None:
    with pytest.raises(UserMistake, match=r"not in \[-1, 0\)"):
        NegativeRobustness(factor)
