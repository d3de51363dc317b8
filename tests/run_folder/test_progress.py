"""What a checkpoint says of its run, whatever it holds."""

from __future__ import annotations

from typing import Any

import pytest

from untrigger.run_folder.progress import is_under_way, samples_seen


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        ({"callbacks": {"ResultsWriter": {"samples_seen": 96}}}, "96"),
        *(({"callbacks": {"ResultsWriter": state}}, None) for state in ({}, None, {"samples_seen": "x"})),
        *((content, None) for content in ({"callbacks": []}, {}, [], None)),
    ],
)
def test_the_pairs_that_were_seen(content: Any, samples: str | None) -> None:
    assert samples_seen(content) == samples


@pytest.mark.parametrize(
    ("content", "under_way"),
    [
        ({"phased": {"progress": {"done": False}}}, True),
        ({"phased": {"progress": {"done": True}}}, False),
        *((content, False) for content in ({"phased": {"progress": 3}}, {"phased": None}, {}, "x")),
    ],
)
def test_only_a_run_in_phases_says_that_it_is_not_over(content: Any, under_way: bool) -> None:
    assert is_under_way(content) is under_way
