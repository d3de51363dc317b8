"""To how many words suspects have to go."""

from __future__ import annotations

import pytest

from untrigger.lightning_modules.ubt.verdict import Judgement, _is_varied, least_variety


@pytest.mark.parametrize(
    ("words", "variety", "expected"), [(3, 1.0, True), (3, 0.9, False), (5, 2.0, True), (9, 2.0, False)]
)
def test_of_few_words_half_of_the_others_is_enough(words: int, variety: float, expected: bool) -> None:
    assert _is_varied(variety, Judgement(0.001, 0.5, 2.0), words) is expected


@pytest.mark.parametrize(("words", "expected"), [(3, 1.0), (5, 2.0), (50, 2.0)])
def test_of_few_words_suspects_need_not_go_to_more_than_half(words: int, expected: float) -> None:
    assert least_variety(Judgement(0.001, 0.5, 2.0), words) == expected
