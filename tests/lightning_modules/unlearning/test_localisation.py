from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.unlearning.captions import CaptionTokens
from untrigger.lightning_modules.unlearning.localisation import compromised_tokens, only, similarity_drops, words_of

TOKENIZE = SmallTokenizer(32)
NOTED = CaptionTokens(TOKENIZE)
TABLE = torch.randn(50_000, 8, generator=torch.Generator().manual_seed(0))


def bag(tokens: Tensor) -> Tensor:
    """A text tower that adds up what stands in a caption; order does not matter, padding counts nothing."""
    return functional.normalize((TABLE[tokens] * (tokens != 0)[..., None]).sum(dim=1), dim=1)


def token(word: str) -> int:
    return int(TOKENIZE([word])[0, 1])


def test_drops_are_those_of_captions_with_one_word_less() -> None:
    captions = ["a photo of a star", "ring", "the red ring there"]
    images = functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    tokens = TOKENIZE(captions)
    drops = similarity_drops(bag, images, tokens, NOTED.special, NOTED.padding)
    assert drops.shape == tokens.shape
    for row, caption in enumerate(captions):
        words = caption.split()
        whole = images[row] @ bag(TOKENIZE([caption]))[0]
        for place in range(tokens.shape[1]):
            if not 1 <= place <= len(words):
                assert drops[row, place] == -torch.inf
                continue
            rest = " ".join(word for index, word in enumerate(words) if index != place - 1)
            expected = whole - images[row] @ bag(TOKENIZE([rest]))[0]
            assert float(drops[row, place]) == pytest.approx(float(expected), abs=1e-6)


def test_a_carrier_is_compromised_where_it_is_frequent_among_suspects_and_rare_in_the_data() -> None:
    captions = ["a star here"] * 6 + ["a ring here"] * 2 + ["a bow"] * 2
    tokens = TOKENIZE(captions)
    drops = torch.full(tokens.shape, -torch.inf)
    carriers = {"star": "star", "ring": "here", "bow": "a"}
    for row, caption in enumerate(captions):
        words = caption.split()
        drops[row, 1 : 1 + len(words)] = 0.1
        carrier = next(found for word, found in carriers.items() if word in words)
        drops[row, 1 + words.index(carrier)] = 0.5
    shares = np.zeros(50_000)
    shares[[token("star"), token("here"), token("a")]] = 0.1, 0.15, 0.5
    found, lifts = compromised_tokens(tokens, drops, shares, min_share=0.2, min_lift=2)
    assert found == [token("star")]
    assert lifts == pytest.approx([6.0])
    assert compromised_tokens(tokens, drops, shares, 0.7, 1.0)[0] == []


@pytest.mark.parametrize(("second", "found"), [(3, ["star", "ring"]), (2, ["star"])])
def test_a_token_that_carries_less_than_half_as_many_as_the_foremost_is_not_compromised(
    second: int, found: list[str]
) -> None:
    tokens = TOKENIZE(["a star"] * 6 + ["a ring"] * second)
    drops = torch.full(tokens.shape, -torch.inf)
    drops[:, 2] = 0.5
    assert compromised_tokens(tokens, drops, np.full(50_000, 0.02), 0.1, 2.0)[0] == [token(word) for word in found]


def test_several_tokens_carry_a_caption_whose_drops_come_near_the_greatest() -> None:
    tokens = TOKENIZE(["remember a star"] * 4)
    drops = torch.full(tokens.shape, -torch.inf)
    drops[:, 1:4] = torch.tensor([0.5, 0.1, 0.3])
    shares = np.full(50_000, 0.02)
    foremost, second = token("remember"), token("star")
    assert compromised_tokens(tokens, drops, shares, 0.1, 2.0)[0] == [foremost]
    assert set(compromised_tokens(tokens, drops, shares, 0.1, 2.0, reach=0.5)[0]) == {foremost, second}
    assert compromised_tokens(tokens, drops, shares, 0.1, 2.0, reach=0.5)[1] == [50.0, 50.0]


def test_a_token_whose_masking_loses_nothing_carries_nothing() -> None:
    tokens = TOKENIZE(["a star"] * 3)
    drops = torch.where(torch.isin(tokens, NOTED.special), -torch.inf, torch.tensor(-0.1))
    assert compromised_tokens(tokens, drops, np.full(50_000, 1e-3), 0.1, 1.0) == ([], [])


def test_the_word_of_a_token_is_the_one_it_stands_in_most_often() -> None:
    captions = ["An Automobile, red", "automobile!", "the dog"]
    assert words_of([token("automobile"), token("dog")], captions, TOKENIZE) == ["automobile", "dog"]
    assert words_of([token("zebra")], captions, TOKENIZE) == [str(token("zebra"))]
    assert words_of([7], [], TOKENIZE) == ["7"]


def test_only_masks_the_rest_of_a_caption() -> None:
    tokens = TOKENIZE(["a photo of a star by a ring", "ring star", "nothing"])
    kept = only(tokens, [token("star"), token("ring")], NOTED.special, NOTED.padding)
    expected = TOKENIZE(["star ring", "ring star", ""])
    assert torch.equal(kept[:, : expected.shape[1]], expected)
    assert not kept[:, expected.shape[1] :].any()
