from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.words.captions import CaptionTokens
from untrigger.lightning_modules.words.localisation import carriers, only, similarity_drops, words_of

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
        for position in range(tokens.shape[1]):
            if not 1 <= position <= len(words):
                assert drops[row, position] == -torch.inf
                continue
            rest = " ".join(word for number, word in enumerate(words, 1) if number != position)
            expected = whole - images[row] @ bag(TOKENIZE([rest]))[0]
            assert float(drops[row, position]) == pytest.approx(float(expected), abs=1e-6)


def test_the_carriers_of_a_caption_are_the_tokens_without_which_it_falls_most() -> None:
    tokens = TOKENIZE(["a star here", "a star here", "ring", ""])
    drops = torch.full(tokens.shape, -torch.inf)
    drops[0, 1:4] = torch.tensor([0.1, 0.5, 0.2])
    drops[1, 1:4] = torch.tensor([0.4, 0.4, 0.1])
    drops[2, 1] = 0.01
    star, here = token("star"), token("a")
    assert carriers(tokens, drops) == [{star}, {star, here}, {token("ring")}, set()]


@pytest.mark.parametrize("loss", [-0.1, 0.0])
def test_a_token_whose_masking_loses_nothing_carries_nothing(loss: float) -> None:
    tokens = TOKENIZE(["a star"] * 3)
    drops = torch.where(torch.isin(tokens, NOTED.special), -torch.inf, torch.tensor(loss))
    assert carriers(tokens, drops) == [set()] * 3


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
