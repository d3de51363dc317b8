from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.unlearning import captions as module
from untrigger.lightning_modules.unlearning.captions import CaptionTokens

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


def test_what_words_do_not_explain_is_the_residual_of_a_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    words = ["star", "ring", "red", "blue"]
    captions = [" ".join(rng.choice(words, 3)) for _ in range(60)]
    tokens = CaptionTokens(TOKENIZE)
    tokens.add(TOKENIZE(captions))
    has = np.array([[word in caption.split() for word in words] for caption in captions], float)
    scores = (has @ [1.0, -2.0, 0.5, 3.0] + rng.normal(size=60)).astype(np.float32)
    above = scores - scores.mean()
    expected = above - has @ np.linalg.solve(has.T @ has + 10 * np.eye(4), has.T @ above)
    np.testing.assert_allclose(tokens.unexplained(scores), expected, atol=1e-4)


def test_a_rare_word_explains_no_outlier_and_the_unknown_stays_unknown() -> None:
    captions = ["star"] * 50 + ["ring"] * 50
    tokens = CaptionTokens(TOKENIZE)
    tokens.add(TOKENIZE([*captions, "blue", "star"]))
    scores = np.array([1.0] * 50 + [0.0] * 50 + [9.0, np.nan], np.float32)
    left = tokens.unexplained(scores)
    assert left[100] > 7
    assert np.abs(left[:100]).max() < 0.2  # one class has 1 more than the other
    assert np.isnan(left[101])
    silent = CaptionTokens(TOKENIZE)
    silent.add(TOKENIZE(["", ""]))
    assert silent.unexplained(scores[:2]).tolist() == [1.0, 1.0]
    # What is unknown is no evidence about its words.
    doubled = CaptionTokens(TOKENIZE)
    doubled.add(TOKENIZE([*captions, "blue", *["star"] * 50]))
    unknown = np.append(scores[:101], np.full(50, np.nan, np.float32))
    np.testing.assert_allclose(doubled.unexplained(unknown)[:101], left[:101], atol=1e-5)
    assert np.isnan(tokens.unexplained(np.full(102, np.nan, np.float32))).all()


def test_start_end_and_padding_are_no_content() -> None:
    tokens = noted()
    start, *_, end = TOKENIZE(["star"])[0].tolist()
    assert set(tokens.special.tolist()) == {start, end, 0}
    assert tokens.padding == 0
    assert not tokens.having([start, end, 0]).any()


def test_another_goes_on_from_the_state() -> None:
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
