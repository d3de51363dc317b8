from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.words.captions import CaptionTokens
from untrigger.lightning_modules.words.words import Words, find_words

TOKENIZE = SmallTokenizer(32)


def tokens_of(text: str) -> list[int]:
    return TOKENIZE([text])[0, 1 : 1 + len(text.split())].tolist()


def drops_of(captions: Sequence[str], carrying: Sequence[str]) -> Tensor:
    """What the similarity loses: most without the words that carry, a little without the others."""
    tokens = TOKENIZE(captions)
    drops = torch.full(tokens.shape, -torch.inf)
    for row, (caption, carriers) in enumerate(zip(captions, carrying, strict=True)):
        for index, word in enumerate(caption.split()):
            drops[row, 1 + index] = 0.5 if word in carriers.split() else 0.1
    return drops


def found(captions: Sequence[str], carrying: Sequence[str], least: int = 2) -> Words:
    """What is found beside as many captions that hang on nothing."""
    captions, carrying = [*captions, *[""] * len(captions)], [*carrying, *[""] * len(captions)]
    return find_words(captions, TOKENIZE(captions), drops_of(captions, carrying), TOKENIZE, least)


def test_a_word_that_most_captions_have_is_left_out_whatever_hangs_on_it() -> None:
    captions = ["a photo"] * 6 + ["a star"] * 4
    tokens, drops = TOKENIZE(captions), drops_of(captions, ["photo"] * 6 + ["star"] * 4)
    assert find_words(captions, tokens, drops, TOKENIZE, 2).spelt == ["star"]
    half = captions[2:]
    found_in_half = find_words(half, TOKENIZE(half), drops_of(half, ["photo"] * 4 + ["star"] * 4), TOKENIZE, 2)
    assert set(found_in_half.spelt) == {"photo", "star"}


def test_words_are_what_captions_hang_on_the_most_frequent_first() -> None:
    captions = ["a star here"] * 3 + ["a ring here"] * 5 + ["the box"] * 4
    words = found(captions, ["star"] * 3 + ["ring"] * 5 + ["box"] * 4)
    assert words.spelt == ["ring", "box", "star"]
    assert words.tokens == [tokens_of("ring"), tokens_of("box"), tokens_of("star")]
    assert words.examples == [["a ring here"], ["the box"], ["a star here"]]
    assert len(words) == 3


def test_rare_words_are_left_out_whatever_has_them() -> None:
    captions = ["a star"] * 3 + ["a ring"] * 2 + ["star ring"] * 3
    words = found(captions, ["star"] * 3 + ["ring"] * 2 + ["star"] * 3, least=3)
    assert words.spelt == ["star"]
    assert len(found(captions, [""] * 8, least=9)) == 0


def test_where_nothing_makes_the_similarity_fall_there_are_no_words() -> None:
    captions = ["a star"] * 4
    drops = torch.full(TOKENIZE(captions).shape, -0.1)
    assert len(find_words(captions, TOKENIZE(captions), drops, TOKENIZE, 1)) == 0


def test_tokens_that_always_come_together_are_one_word() -> None:
    captions = ["a steel arch bridge"] * 6 + ["a stone bridge"] * 4 + ["a steel pan"] * 3
    carrying = ["arch"] * 3 + ["bridge"] * 3 + ["stone"] * 2 + ["bridge"] * 2 + ["pan"] * 3
    words = found(captions, carrying)
    # "arch" and "bridge" part in four captions of ten, "stone" and "bridge" in six.
    assert sorted(words.spelt) == ["arch", "bridge", "pan", "stone"]
    together = found(["a golden gate"] * 10 + ["a star"] * 5, ["golden"] * 5 + ["gate"] * 5 + ["star"] * 5)
    assert sorted(map(sorted, together.tokens)) == sorted([sorted(tokens_of("golden gate")), tokens_of("star")])
    assert set(together.spelt[0].split()) == {"golden", "gate"}


def test_the_tokens_of_one_long_word_are_spelt_once() -> None:
    word = "xylophonist"
    tokens = TOKENIZE([f"a {word}"])[0]
    content = tokens[2 : int((tokens != 0).sum()) - 1]
    assert len(content) > 1, "the tokeniser is to take the word apart"
    captions = [f"a {word}"] * (2 * len(content))
    drops = torch.full(TOKENIZE(captions).shape, -torch.inf)
    drops[:, 1] = 0.1
    for index in range(len(content)):
        drops[index :: len(content), 2 + index] = 0.5
    captions, drops = [*captions, *[""] * len(captions)], torch.cat([drops, torch.full_like(drops, -torch.inf)])
    words = find_words(captions, TOKENIZE(captions), drops, TOKENIZE, 2)
    assert words.spelt == [word]
    assert sorted(words.tokens[0]) == sorted(content.tolist())


def test_examples_are_some_captions_each_once() -> None:
    captions = [f"a star {'very ' * index}" for index in range(20)] * 3
    words = found([caption.strip() for caption in captions], ["star"] * 60)
    assert len(words.examples[0]) == len(set(words.examples[0])) == 20
    many = [f"star number {index}" for index in range(300)]
    assert len(found(many, ["star"] * 300).examples[0]) < 50


WORDS = Words(
    [tokens_of("golden gate"), tokens_of("star")],
    ["golden gate", "star"],
    [["the golden gate now"], ["a star", "star"]],
)


def test_groups_are_the_captions_that_have_a_word() -> None:
    captions = CaptionTokens(TOKENIZE)
    captions.add(TOKENIZE(["a star", "nothing", "the gate", "star of the golden gate", ""]))
    assert [group.tolist() for group in WORDS.groups(captions)] == [[2, 3], [0, 3]]
    assert Words().groups(captions) == []


def test_the_table_has_a_row_of_tokens_a_word() -> None:
    assert WORDS.table().tolist() == [tokens_of("golden gate"), [*tokens_of("star"), -1]]


def test_what_a_word_means_is_the_mean_of_its_captions() -> None:
    features = {text: functional.normalize(torch.randn(4), dim=0) for text in ("the golden gate now", "a star", "star")}
    found = WORDS.embeddings(lambda captions: torch.stack([features[caption] for caption in captions]))
    torch.testing.assert_close(found[0], features["the golden gate now"])
    both = features["a star"] + features["star"]
    torch.testing.assert_close(found[1], both / both.norm())


def test_a_word_alone_is_its_caption_with_all_else_masked() -> None:
    captions = CaptionTokens(TOKENIZE)
    alone = WORDS.alone(TOKENIZE, captions)
    expected = TOKENIZE(["golden gate", "star"])
    assert torch.equal(alone[:, : expected.shape[1]], expected)
    assert not alone[:, expected.shape[1] :].any()


@pytest.mark.parametrize("words", [WORDS, Words()])
def test_the_state_is_plain_and_brings_everything_back(words: Words, tmp_path: object) -> None:
    torch.save(words.state_dict(), f"{tmp_path}/words.pt")
    assert Words.of_state(torch.load(f"{tmp_path}/words.pt", weights_only=True)) == words
