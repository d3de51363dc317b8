from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.phased.scores import PassScores, aligned, otsu
from untrigger.lightning_modules.ubt.findings import Findings
from untrigger.lightning_modules.ubt.verdict import divide
from untrigger.lightning_modules.words.captions import CaptionTokens


def test_a_pass_gives_what_was_noted_in_order() -> None:
    scores = PassScores()
    scores.add(["a", "b"], {"one": torch.tensor([1.0, 2.0]), "two": torch.tensor([-1.0, 0.0], dtype=torch.bfloat16)})
    scores.add(["c"], {"one": torch.tensor([3.0]), "two": torch.tensor([4.0], dtype=torch.bfloat16)})
    keys, values = scores.gather()
    assert keys == ["a", "b", "c"]
    assert {name: value.tolist() for name, value in values.items()} == {"one": [1, 2, 3], "two": [-1, 0, 4]}
    assert all(value.dtype == np.float32 for value in values.values())


def test_three_million_pairs_fit_in_a_gigabyte() -> None:
    count, batch = 40_000, 500
    tokenize = SmallTokenizer(32)
    tokens = tokenize(["a photo of a red star on the wall of a house"]).expand(batch, -1).clone()
    tracemalloc.start()
    try:
        scores, findings = PassScores(), Findings(CaptionTokens(tokenize))
        for start in range(0, count, batch):
            keys = [f"{number:09d}" for number in range(start, start + batch)]
            scores.add(
                keys,
                {name: torch.zeros(batch) for name in ("poisoned", "poisoned/DetailMargin", "poisoned/word", "probed")},
            )
            findings.captions.add(tokens)
        findings.keys, findings.seen = scores.gather()
        del scores
        findings.captions.gather()
        findings.captions.shares()
        group = findings.captions.having([int(tokens[0, 1])])
        poisoned = findings.seen["poisoned"]
        findings.decision = divide(np.flatnonzero(group), poisoned, findings.seen["probed"], 0.6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What torch allocates is not traced: the numbers before they are gathered.
    assert peak / count + 4 * 4 < 1e9 / 3e6


def test_another_resumes_from_the_state_of_its_rank() -> None:
    first = PassScores()
    first.add(["a"], {"one": torch.tensor([1.0])})
    second = PassScores()
    second.load_state_dict(first.state_dict(), 0)
    second.add(["b"], {"one": torch.tensor([2.0])})
    keys, values = second.gather()
    assert (keys, values["one"].tolist()) == (["a", "b"], [1, 2])


def test_another_pass_is_put_into_the_order_of_the_first() -> None:
    scores = np.array([1, 2, 3], np.float32)
    assert aligned(["a", "b", "c"], ["a", "b", "c"], scores) is scores
    moved = aligned(["c", "a", "x"], ["a", "b", "c"], scores)
    assert moved[[0, 2]].tolist() == [2, 1]
    assert np.isnan(moved[1])


def test_two_modes_are_split_between_them() -> None:
    rng = np.random.default_rng(0)
    lower, upper = rng.normal(0, 0.05, 950), rng.normal(0.8, 0.1, 50)
    threshold, share = otsu(np.concatenate([upper, lower]).astype(np.float32))
    assert lower.max() < threshold < upper.min()
    assert share > 0.9


@pytest.mark.parametrize(("draw", "expected"), [("normal", 2 / np.pi), ("uniform", 0.75)])
def test_the_share_between_the_halves_of_one_mode_is_what_theory_says(draw: str, expected: float) -> None:
    values = getattr(np.random.default_rng(0), draw)(size=50_000).astype(np.float32)
    assert otsu(values)[1] == pytest.approx(expected, abs=0.01)


def test_the_split_is_the_best_of_all() -> None:
    values = np.array([0, 0, 1, 5, 6, 6.5], np.float32)
    threshold, share = otsu(values)
    by_hand = {
        cut: sum(((part - part.mean()) ** 2).sum() for part in (values[:cut], values[cut:])) for cut in range(1, 6)
    }
    best = min(by_hand, key=lambda cut: by_hand[cut])
    assert best == 3
    assert 1 < threshold < 5
    assert share == pytest.approx(1 - by_hand[best] / ((values - values.mean()) ** 2).sum(), rel=1e-5)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_equal_numbers_are_not_split(values: list[float]) -> None:
    threshold, share = otsu(np.array(values, np.float32))
    assert share == 0
    assert not (np.array(values) > threshold).any()
