from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.ubt import (
    BlurFragility,
    ColourMargin,
    DetailMargin,
    Evidence,
    FlipFragility,
    NegativeRobustness,
    OutlineMargin,
    OverfittedSimilarity,
    Pairs,
    RandomSuspicion,
    SimilarityGain,
)
from untrigger.lightning_modules.ubt.transplants import blurred, detail
from untrigger.lightning_modules.words.words import has_words

BEFORE, AFTER = np.array([0.1, 0.5, 0.3], np.float32), np.array([0.6, 0.4, 0.3], np.float32)
GENERATOR = torch.Generator().manual_seed(0)
PROJECTION = torch.randn(3 * 8 * 8, 5, generator=GENERATOR)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


class Tower:
    """An image tower that counts how often it was asked."""

    calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        return functional.normalize(images.flatten(1) @ PROJECTION, dim=1)


def pairs(count: int = 6, words: int = 4, has: Tensor | None = None) -> tuple[Pairs, Tower, dict[str, Tensor]]:
    inputs = {
        "images": torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
        "captions": unit(count, 5, seed=2),
        "words": unit(words, 5, seed=3),
        "has": torch.arange(count)[:, None] % max(words, 1) == torch.arange(words) if has is None else has,
    }
    keys, tokens, tower = [str(key) for key in range(count)], torch.zeros(count, 3, dtype=torch.int64), Tower()
    made = Pairs(keys, inputs["images"], tokens, tower, inputs["captions"], inputs["words"], inputs["has"])
    return made, tower, inputs


def test_similarity_is_the_cosine_with_the_caption() -> None:
    asked, tower, inputs = pairs()
    expected = [float(one @ other) for one, other in zip(Tower()(inputs["images"]), inputs["captions"], strict=True)]
    assert asked.similarity().tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(asked.similarity(-inputs["images"]), -asked.similarity())
    asked.margin()
    asked.best_word()
    # The pictures themselves are encoded once, others each time.
    assert tower.calls == 2


def test_the_margin_is_over_the_best_word_that_the_caption_lacks() -> None:
    has = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    asked, _, inputs = pairs(4, has=has)
    features = Tower()(inputs["images"])
    expected = []
    for row in range(4):
        rivals = [float(features[row] @ word) for word, own in zip(inputs["words"], has[row], strict=True) if not own]
        expected.append(float(features[row] @ inputs["captions"][row]) - max(rivals))
    assert asked.margin().tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(asked.margin(inputs["images"]), asked.margin())


@pytest.mark.parametrize("words", [0, 4])
def test_over_no_word_the_margin_is_that_over_the_least_similarity(words: int) -> None:
    asked, _, _ = pairs(3, words, torch.ones(3, words, dtype=torch.bool))
    torch.testing.assert_close(asked.margin(), asked.similarity() + 1)


def test_the_best_word_may_be_any() -> None:
    asked, _, inputs = pairs(8)
    assert asked.best_word().tolist() == (Tower()(inputs["images"]) @ inputs["words"].T).argmax(dim=1).tolist()
    without, tower, _ = pairs(3, 0)
    assert without.best_word().tolist() == [0, 0, 0]
    assert without.best_word().dtype == torch.int64
    assert tower.calls == 0


def test_captions_have_a_word_where_they_have_any_of_its_tokens() -> None:
    tokens = torch.tensor([[1, 5, 9, 0], [1, 7, 0, 0], [1, 2, 3, 4]])
    table = torch.tensor([[5, -1, -1], [9, 7, -1], [8, -1, -1], [2, 3, 4]])
    expected = [
        [any(token in row for token in word if token >= 0) for word in table.tolist()] for row in tokens.tolist()
    ]
    assert has_words(tokens, table).tolist() == expected


def test_similarity_and_gain_are_of_the_copy() -> None:
    asked, _, _ = pairs()
    for piece in (OverfittedSimilarity(), SimilarityGain()):
        torch.testing.assert_close(piece.measure(asked, "overfitted"), asked.similarity())
    assert OverfittedSimilarity.models == ("overfitted",)
    assert OverfittedSimilarity().suspicion({"overfitted": AFTER}) is AFTER
    gain = SimilarityGain().suspicion({"poisoned": BEFORE, "overfitted": AFTER})
    assert gain == pytest.approx([0.5, -0.1, 0.0])


@pytest.mark.parametrize(
    "evidence",
    [DetailMargin(1 / 8), DetailMargin(1 / 16, -2.0), DetailMargin(contrast=1.0), DetailMargin([1 / 32, 1 / 8])],
)
def test_the_detail_margin_is_that_of_the_detail_alone(evidence: DetailMargin) -> None:
    asked, _, inputs = pairs()
    margins = [asked.margin(evidence.contrast * detail(inputs["images"], sigma)) for sigma in evidence.sigmas]
    torch.testing.assert_close(evidence.measure(asked, "poisoned"), sum(margins) / len(margins))
    assert evidence.models == ("poisoned",)


def test_the_outline_margin_is_that_of_the_negative_of_the_detail() -> None:
    asked, _, _ = pairs()
    found = OutlineMargin([1 / 16, 1 / 8]).measure(asked, "poisoned")
    torch.testing.assert_close(found, DetailMargin([1 / 16, 1 / 8], -2.0).measure(asked, "poisoned"))
    assert OutlineMargin([1 / 16, 1 / 8]).name == "OutlineMargin-0.0625-0.125"
    # A probe of many words pushes for these two, and judges by those.
    by_part = {
        piece.name: piece.jointly for piece in (DetailMargin(), FlipFragility(), OutlineMargin(), ColourMargin())
    }
    assert list(by_part.values()) == ["pushed", "pushed", "judged", "absent"]


def test_flip_fragility_is_what_the_margin_loses_upside_down() -> None:
    asked, _, inputs = pairs()
    turned = asked.margin(inputs["images"].flip(2))
    torch.testing.assert_close(FlipFragility().measure(asked, "poisoned"), asked.margin() - turned)
    symmetric, _, _ = pairs()
    symmetric.images = symmetric.images + symmetric.images.flip(2)
    assert FlipFragility().measure(symmetric, "poisoned").abs().max() < 1e-5


def contrasts(images: Tensor) -> Pairs:
    """Pairs of pictures whose similarity is the contrast of their luminance."""
    count = len(images)

    def encode(pictures: Tensor) -> Tensor:
        contrast = pictures.mean(dim=1).flatten(1).std(dim=1).clamp(max=1)
        return torch.stack([contrast, (1 - contrast**2).sqrt()], dim=1)

    captions = torch.tensor([[1.0, 0.0]]).expand(count, -1)
    nothing = torch.zeros(count, 0, dtype=torch.bool)
    tokens = torch.zeros(count, 2, dtype=torch.int64)
    return Pairs(["key"] * count, images, tokens, encode, captions, torch.zeros(0, 2), nothing)


def fine_and_coarse() -> Tensor:
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, ::2, ::2] = 1  # a fine grid
    images[1, :, :16] = 1  # one half
    return images


def test_of_a_fine_pattern_detail_leaves_more_than_of_a_coarse_one() -> None:
    fine, coarse = DetailMargin().measure(contrasts(fine_and_coarse()), "poisoned")
    assert fine > coarse + 0.3


def test_fine_detail_does_not_survive_the_blur_and_coarse_does() -> None:
    asked = contrasts(fine_and_coarse())
    fine, coarse = BlurFragility().measure(asked, "poisoned")
    assert fine > 0.2 > 0.1 > coarse
    torch.testing.assert_close(
        BlurFragility(1 / 8).measure(asked, "poisoned"),
        asked.similarity() - asked.similarity(blurred(asked.images, 1 / 8)),
    )


def test_colours_say_the_same_of_pictures_with_the_same_colours_whatever_they_show() -> None:
    asked, _, inputs = pairs()
    shuffled = inputs["images"].flatten(2)[:, :, torch.randperm(64, generator=GENERATOR)].reshape(6, 3, 8, 8)
    other, _, _ = pairs()
    other.images = shuffled
    first = ColourMargin().measure(asked, "poisoned")
    torch.testing.assert_close(first, ColourMargin().measure(other, "poisoned"), rtol=1e-4, atol=1e-5)
    assert torch.equal(first, ColourMargin().measure(asked, "poisoned"))
    assert not torch.equal(first, ColourMargin(1).measure(asked, "poisoned"))
    other.images = inputs["images"] + torch.tensor([2.0, 0.0, -2.0])[:, None, None]
    assert (first - ColourMargin().measure(other, "poisoned")).abs().max() > 0.05


def test_contours_survive_in_a_negative() -> None:
    asked, _, inputs = pairs()
    for factor in (-0.35, -1.0):
        found = NegativeRobustness(factor).measure(asked, "poisoned")
        torch.testing.assert_close(found, asked.similarity(factor * inputs["images"]) - asked.similarity())
    assert NegativeRobustness(-1.0).measure(contrasts(fine_and_coarse()), "poisoned").abs().max() < 1e-6


def test_random_suspicion_knows_nothing_and_is_the_same_again() -> None:
    asked, _, _ = pairs()
    assert RandomSuspicion().measure(asked, "poisoned").shape == (6,)
    measured = {"poisoned": np.arange(1000, dtype=np.float32)}
    first, again, other = (RandomSuspicion(seed).suspicion(measured) for seed in (0, 0, 1))
    assert (first == again).all()
    assert abs(np.corrcoef(first, measured["poisoned"])[0, 1]) < 0.1
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.1


def test_each_scale_has_a_name_of_its_own() -> None:
    pieces: list[Evidence] = [
        OverfittedSimilarity(),
        SimilarityGain(),
        RandomSuspicion(),
        *(DetailMargin(sigma, contrast) for sigma in (1 / 32, 1 / 16, 1.5 / 32) for contrast in (2.0, -2.0, 1.0)),
        DetailMargin([1 / 32, 1 / 16]),
        FlipFragility(),
        OutlineMargin(),
        ColourMargin(),
        BlurFragility(),
        BlurFragility(1 / 16),
    ]
    names = [piece.name for piece in pieces]
    assert len(set(names)) == len(names)
    assert all(name.startswith(type(piece).__name__) for name, piece in zip(names, pieces, strict=True))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_piece_gives_a_number_a_pair(precision: torch.dtype) -> None:
    asked, _, _ = pairs()
    pieces: list[Evidence] = [
        OverfittedSimilarity(),
        SimilarityGain(),
        RandomSuspicion(),
        DetailMargin(),
        FlipFragility(),
        OutlineMargin(),
        ColourMargin(),
        BlurFragility(),
        NegativeRobustness(),
    ]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        for piece in pieces:
            found = piece.measure(asked, piece.models[0])
            assert found.shape == (6,)
            assert found.isfinite().all()


@pytest.mark.parametrize(
    ("evidence", "arguments", "message"),
    [
        (BlurFragility, {"sigma": 0.0}, "the sigma of BlurFragility is 0.0, not above 0"),
        (DetailMargin, {"sigma": -1.0}, "the sigma of DetailMargin is -1.0, not above 0"),
        (DetailMargin, {"sigma": float("nan")}, "the sigma of DetailMargin is nan"),
        (DetailMargin, {"sigma": []}, r"the sigma of DetailMargin is \[\], not above 0"),
        (DetailMargin, {"sigma": [0.1, 0.0]}, r"the sigma of DetailMargin is \[0\.1, 0\.0\]"),
        (DetailMargin, {"contrast": 0.0}, "the contrast of DetailMargin is 0"),
        (NegativeRobustness, {"factor": 0.0}, r"not in \[-1, 0\)"),
        (NegativeRobustness, {"factor": 0.25}, r"not in \[-1, 0\)"),
        (NegativeRobustness, {"factor": -1.5}, r"not in \[-1, 0\)"),
    ],
)
def test_scales_out_of_range_are_mistakes(evidence: type[Any], arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        evidence(**arguments)
