from __future__ import annotations

import pickle
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from untrigger.contracts import UserMistake
from untrigger.datamodules.views import EDA, TextView

OPERATIONS = ("synonym_replacement", "random_insertion", "random_swap", "random_deletion")
WORDS = [f"{letter}word" for letter in "bcdefghijklmnopqrstu"]
CAPTION = " ".join(WORDS)


def only(operation: str, rate: float = 0.1, synonyms: str | Path = "builtin") -> EDA:
    return EDA(**{**dict.fromkeys(OPERATIONS, 0.0), operation: rate}, synonyms=str(synonyms))


def views(eda: EDA, caption: str, seeds: int = 200) -> list[str]:
    return eda([caption] * seeds, range(seeds))


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Each of WORDS has two synonyms."""
    path = tmp_path / "synonyms.txt"
    path.write_text("".join(f"{word}, {word}-one, {word}-two\n" for word in WORDS), encoding="utf-8")
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.txt"
    path.write_text("photo, picture\n", encoding="utf-8")
    return path


# Draws and seeds


def test_views_are_functions_of_caption_and_seed() -> None:
    eda = EDA()
    captions = ["a photo of a small frog.", "a blurry photo of the truck.", "two dogs playing on the beach", "", "!"]
    seeds = [3, 2**64 - 1, 2**40, 5, 6]
    whole = eda(captions, seeds)
    random.random()
    assert EDA()(captions, seeds) == whole
    assert eda(captions[::-1], seeds[::-1]) == whole[::-1]
    assert [eda([caption], [seed])[0] for caption, seed in zip(captions, seeds, strict=True)] == whole
    assert pickle.loads(pickle.dumps(eda))(captions, seeds) == whole


def test_views_are_the_same_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("photo, picture, image\nsmall, little, tiny\n", encoding="utf-8")
    # Python's hashes differ from process to process, so the order of a set would show here.
    assert EDA(synonyms=str(path))(["a photo of a small frog."] * 8, range(8)) == [
        "a photo of a small frog.",
        "a photo of a picture small frog.",
        "a photo of a tiny frog.",
        "a photo of a picture small frog.",
        "a photo picture of a small frog.",
        "a photo frog. a small of",
        "a image of a small frog.",
        "a a of photo small frog.",
    ]


def test_seeds_draw_different_views() -> None:
    caption = "a blurry black and white photo of the small automobile on the road near a house"
    assert len(set(views(EDA(), caption))) > 80


def test_the_random_state_of_the_process_is_left_as_it_was() -> None:
    before = random.getstate()
    views(EDA(), "a photo of a small frog.")
    assert random.getstate() == before


def test_captions_without_a_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        EDA()(["a photo", "a frog"], [1])


def test_the_four_operations_are_equally_likely(table: Path) -> None:
    drawn = 4000
    seen: Counter[str] = Counter()
    for view in views(EDA(synonyms=str(table)), CAPTION, drawn):
        words = view.split()
        if len(words) > len(WORDS):
            seen["random_insertion"] += 1
        elif sorted(words) == sorted(WORDS) and words != WORDS:
            seen["random_swap"] += 1
        elif len(words) == len(WORDS) and words != WORDS:
            seen["synonym_replacement"] += 1
        else:  # deletion that drops nothing included
            seen["random_deletion"] += 1
    chi_squared = sum((seen[name] - drawn / 4) ** 2 / (drawn / 4) for name in OPERATIONS)
    assert chi_squared < 16.27  # three degrees of freedom, p = 0.001


# Synonym replacement


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a frog.", "a picture of a frog."),
        ("Photo of a frog", "Picture of a frog"),
        ("A PHOTO of a frog", "A PICTURE of a frog"),
        ("(“photo”), of a 2nd frog", "(“picture”), of a 2nd frog"),
        ("a photo of a Photo!", "a picture of a Picture!"),
        ("photography of photo-frames", "photography of photo-frames"),
    ],
)
def test_replacement_keeps_case_and_punctuation(photo: Path, caption: str, expected: str) -> None:
    assert set(views(only("synonym_replacement", synonyms=photo), caption, 20)) == {expected}


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 1), (0.1, 2), (0.25, 5), (0.99, 19), (1.0, 20)])
def test_replacement_touches_the_papers_number_of_words(table: Path, rate: float, expected: int) -> None:
    for view in views(only("synonym_replacement", rate, table), CAPTION):
        changed = [(old, new) for old, new in zip(WORDS, view.split(), strict=True) if old != new]
        assert len(changed) == expected
        assert all(new in (f"{old}-one", f"{old}-two") for old, new in changed)


def test_every_word_and_every_synonym_is_drawn(table: Path) -> None:
    drawn = set(" ".join(views(only("synonym_replacement", 0.1, table), CAPTION, 400)).split()) - set(WORDS)
    assert drawn == {f"{word}-{which}" for word in WORDS for which in ("one", "two")}


def test_stop_words_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "stop.txt"
    path.write_text("a, the, of, photo\nTHE, big\n", encoding="utf-8")
    for view in views(only("synonym_replacement", 1.0, path), "a photo of THE frog"):
        first, second, *rest = view.split()
        assert (first, rest) == ("a", ["of", "THE", "frog"])
        assert second in ("a", "the", "of")


def test_stop_words_lend_no_synonyms_to_insertion(tmp_path: Path) -> None:
    path = tmp_path / "stop.txt"
    path.write_text("the, big\n", encoding="utf-8")
    assert set(views(only("random_insertion", 1.0, path), "the frog", 20)) == {"the frog"}


# Random insertion


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 1), (0.1, 2), (0.25, 5)])
def test_insertion_adds_synonyms_of_the_captions_words(table: Path, rate: float, expected: int) -> None:
    for view in views(only("random_insertion", rate, table), CAPTION):
        words = view.split()
        assert is_subsequence(WORDS, words)
        added = Counter(words) - Counter(WORDS)
        assert added.total() == expected
        assert set(added) <= {f"{word}-{which}" for word in WORDS for which in ("one", "two")}


def test_insertion_reaches_every_index(photo: Path) -> None:
    assert set(views(only("random_insertion", synonyms=photo), "a photo now")) == {
        "picture a photo now",
        "a picture photo now",
        "a photo picture now",
        "a photo now picture",
    }


# Random swap


def test_one_swap_changes_exactly_two_swapped() -> None:
    swapped = set()
    for view in views(only("random_swap", 0.05), CAPTION, 2000):
        changed = [index for index, word in enumerate(view.split()) if word != WORDS[index]]
        assert len(changed) == 2
        one, other = changed
        assert view.split()[one] == WORDS[other]
        assert view.split()[other] == WORDS[one]
        swapped.add((one, other))
    assert len(swapped) == 190  # 20 choose 2


def test_swaps_keep_the_words() -> None:
    for view in views(only("random_swap", 0.5), CAPTION):
        assert sorted(view.split()) == sorted(WORDS)
        assert sum(old != new for old, new in zip(WORDS, view.split(), strict=True)) <= 20


def test_numbers_and_dashes_stay_in_their_index() -> None:
    assert set(views(only("random_swap"), "2 frogs - 3 toads", 20)) == {"2 toads - 3 frogs"}


# Random deletion


def test_each_word_is_dropped_at_the_rate() -> None:
    drawn = 4000
    kept: Counter[str] = Counter()
    for view in views(only("random_deletion", 0.1), CAPTION, drawn):
        assert is_subsequence(view.split(), WORDS)
        kept.update(view.split())
    for word in WORDS:  # five standard deviations of a binomial
        assert abs(kept[word] - 0.9 * drawn) < 5 * (drawn * 0.09) ** 0.5


def test_one_random_word_stays_where_all_would_go() -> None:
    assert set(views(only("random_deletion", 1.0), CAPTION, 400)) == set(WORDS)
    assert set(views(only("random_deletion", 1.0), "2 frogs, 3", 20)) == {"2 frogs, 3"}


# Captions as they come


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "caption", ["", "  ", "\n\t", "123", "!!! - 4,000 ...", "🐸 🐸", "\x00 \x1b[0 \x07", "___ _1_"]
)
def test_captions_without_letters_are_their_own_view(operation: str, caption: str) -> None:
    assert set(views(only(operation, 1.0), caption, 20)) == {caption}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("word", ["frog", "a", "Ж", "蛙", "\x00x\x1b[31m", "\ud800x", "'s", "-photo-", "a" * 100_000])
def test_captions_of_one_word_keep_a_word(operation: str, word: str) -> None:
    for view in views(only(operation, 1.0), word, 20):
        assert view.strip()
        if operation in ("random_swap", "random_deletion"):
            assert view == word


def test_control_characters_pass_through() -> None:
    caption = "a\x00photo \x1b]0;owned\x07 of \u202ea frog\u200b \ufeff."
    for view in views(only("random_swap"), caption):
        assert sorted(view.split()) == sorted(caption.split())


@pytest.mark.parametrize(
    ("operation", "shortest", "longest"),
    [
        ("synonym_replacement", 10_000, 10_000),
        ("random_insertion", 11_000, 11_000),
        ("random_swap", 10_000, 10_000),
        ("random_deletion", 8_800, 9_200),
    ],
)
def test_captions_of_ten_thousand_words(table: Path, operation: str, shortest: int, longest: int) -> None:
    caption = " ".join(WORDS * 500)
    (view,) = only(operation, 0.1, table)([caption], [1])
    assert view != caption
    assert shortest <= len(view.split()) <= longest


# Mistakes and configs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"random_swap": 1.5}, "EDA's random_swap is 1.5; it is a share of the words, between 0 and 1"),
        ({"random_deletion": -0.1}, "EDA's random_deletion is -0.1"),
        ({"synonym_replacement": float("nan")}, "EDA's synonym_replacement is nan"),
        (dict.fromkeys(OPERATIONS, 0.0), "all four rates of EDA are 0"),
        ({"synonyms": "builtins"}, "cannot read synonyms from 'builtins'"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        EDA(**arguments)


def test_a_config_names_the_rates() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--view", type=TextView)
    config = {"class_path": "untrigger.datamodules.views.EDA", "init_args": {"random_swap": 0.3}}
    view = parser.instantiate(parser.parse_object({"view": config})).view
    assert (view.random_swap, view.random_deletion, view.synonyms) == (0.3, 0.1, "builtin")
