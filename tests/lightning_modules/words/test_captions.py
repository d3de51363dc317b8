from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.words import captions as module
from untrigger.lightning_modules.words.captions import CaptionTokens

TOKENIZE = SmallTokenizer(32)
CAPTIONS = ["a red star", "the blue blue ring", "a star on a ring", "!", "red"]


def token(word: str) -> int:
    return int(TOKENIZE([word])[0, 1])


def noted(captions: Sequence[str] = CAPTIONS) -> CaptionTokens:
    tokens = CaptionTokens(TOKENIZE)
    tokens.add(TOKENIZE(captions[:2]))
    tokens.add(TOKENIZE(captions[2:]))
    return tokens


def test_shares_count_each_caption_once() -> None:
    shares = noted().shares()
    expected = {"star": 2 / 5, "blue": 1 / 5, "ring": 2 / 5, "red": 2 / 5, "a": 2 / 5}
    assert {word: shares[token(word)] for word in expected} == expected
    assert shares.sum() == sum(len(set(caption.split())) for caption in CAPTIONS) / 5


def test_shares_do_not_depend_on_the_stretches(monkeypatch: object) -> None:
    many = CaptionTokens(TOKENIZE)
    rng = np.random.default_rng(0)
    captions = [" ".join(rng.choice(["star", "ring", "red", "blue"], 3)) for _ in range(500)]
    tokens = TOKENIZE(captions)
    for start in range(0, 500, 7):
        many.add(tokens[start : start + 7])
    shares = many.shares()
    for word in ("star", "ring", "red", "blue"):
        assert shares[token(word)] == np.mean([word in caption.split() for caption in captions])


def test_having_finds_the_captions_with_any_of_the_tokens() -> None:
    tokens = noted()
    assert tokens.having([token("star")]).tolist() == [True, False, True, False, False]
    assert tokens.having([token("blue"), token("red")]).tolist() == [True, True, False, False, True]
    assert tokens.having([]).tolist() == [False] * 5


def test_start_end_and_padding_are_no_content() -> None:
    tokens = noted()
    start, *_, end = TOKENIZE(["star"])[0].tolist()
    assert set(tokens.special.tolist()) == {start, end, 0}
    assert tokens.padding == 0
    assert not tokens.having([start, end, 0]).any()


def test_another_resumes_from_the_state() -> None:
    first = CaptionTokens(TOKENIZE)
    first.add(TOKENIZE(CAPTIONS[:2]))
    second = CaptionTokens(TOKENIZE)
    second.load_state_dict(first.state_dict())
    second.add(TOKENIZE(CAPTIONS[2:]))
    assert np.array_equal(second.shares(), noted().shares())
    assert second.having([token("red")]).tolist() == [True, False, False, False, True]


def test_three_million_captions_take_four_bytes_a_token() -> None:
    tokens = CaptionTokens(TOKENIZE)
    batch: Tensor = torch.cat([TOKENIZE(["a photo of a red star on the wall"])] * 500)
    for _ in range(20):
        tokens.add(batch)
    state = tokens.state_dict()
    size = sum(part.element_size() * part.nelement() for part in state.values())
    assert size / 10_000 * 3e6 < 150e6
    assert len(tokens._waiting) < module._WAITING
