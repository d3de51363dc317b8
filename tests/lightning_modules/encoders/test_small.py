from __future__ import annotations

import pickle
import random
import string

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders import Encoder, build_encoder
from untrigger.lightning_modules.encoders.small import PRESETS

CAPTIONS = ["a photo of a star.", "X", "", "two  CATS &amp; a dog, " * 30, "ein Bär 🐻"]


@pytest.fixture(scope="module")
def nano() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("small:nano-32").eval()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_embeds_and_trains_both_towers(preset: str) -> None:
    encoder = build_encoder(f"small:{preset}")
    assert encoder.image_size == int(preset[-2:])
    images = torch.randn(2, 3, encoder.image_size, encoder.image_size)
    features = encoder.encode_image(images), encoder.encode_text(encoder.tokenizer(["a", "b c"]))
    assert [tuple(feature.shape) for feature in features] == [(2, encoder.embedding_dim)] * 2
    (features[0] * features[1]).sum().mul(encoder.logit_scale).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_tokens_are_clip_s_own(nano: Encoder) -> None:
    expected = SimpleTokenizer(context_length=32)(CAPTIONS)
    tokens = nano.tokenizer(CAPTIONS)
    assert tokens.shape == (5, 32)
    assert torch.equal(tokens, expected)
    short = nano.tokenizer(CAPTIONS[:2])
    assert torch.equal(short, expected[:2, : short.shape[1]])
    assert not expected[:2, short.shape[1] :].any()


@pytest.mark.parametrize(
    "caption",
    [
        "it's A dog's 3rd house, isn't it?!",
        "  spaces   everywhere ",
        "tab\tand\nline",
        "a<start_of_text>b <end_of_text> 'll",
        "Q&amp;A &amp;lt;b&amp;gt; AT&T",
        "caf\u00e9 \u201cquoted\u201d \ufb01ne \x1b[31mred",
        "schÃ¶n don'T x-y_z 100% $5.00 ... --",
    ],
)
def test_captions_taken_word_by_word_have_the_same_tokens(nano: Encoder, caption: str) -> None:
    for _ in range(2):  # the second time, from what is kept
        tokens = nano.tokenizer([caption])
        assert torch.equal(tokens, SimpleTokenizer(context_length=32)([caption])[:, : tokens.shape[1]])


def test_captions_of_any_printable_characters_have_the_same_tokens(nano: Encoder) -> None:
    draws = random.Random(0)
    clips = SimpleTokenizer(context_length=32)
    captions = ["".join(draws.choices(string.printable + "  '<>é", k=draws.randrange(60))) for _ in range(300)]
    tokens = nano.tokenizer(captions)
    assert torch.equal(tokens, clips(captions)[:, : tokens.shape[1]])


def test_a_caption_that_is_too_long_keeps_its_end_token(nano: Encoder) -> None:
    (tokens,) = nano.tokenizer(["star " * 500])
    assert len(tokens) == 32
    assert tokens[-1] == tokens.max() == 49407
    (hostile,) = nano.tokenizer(["x" * 1_000_000])
    assert hostile[-1] == 49407


def test_padding_and_the_rest_of_the_batch_do_not_matter(nano: Encoder) -> None:
    with torch.no_grad():
        together = nano.encode_text(nano.tokenizer(CAPTIONS))
        for caption, features in zip(CAPTIONS, together, strict=True):
            torch.testing.assert_close(nano.encode_text(nano.tokenizer([caption]))[0], features, atol=1e-5, rtol=1e-4)


def test_the_image_tower_is_all_that_a_picture_needs(nano: Encoder) -> None:
    nano.zero_grad()
    nano.encode_image(torch.randn(2, 3, 32, 32)).sum().backward()
    used = {id(parameter) for parameter in nano.parameters() if parameter.grad is not None}
    assert used == {id(parameter) for parameter in nano.image_tower.parameters()}
    nano.zero_grad()


def test_preprocessing_reaches_a_worker(nano: Encoder) -> None:
    again = pickle.loads(pickle.dumps(nano.preprocessing))
    assert torch.equal(again.tokenize(CAPTIONS), nano.tokenizer(CAPTIONS))


def test_an_unknown_preset_is_told_what_there_is() -> None:
    with pytest.raises(UserMistake, match=r"unknown encoder small:bsae-32; there are .*did you mean small:base-32"):
        build_encoder("small:bsae-32")
