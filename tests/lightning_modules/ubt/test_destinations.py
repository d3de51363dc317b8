from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import hypergeom

from untrigger.lightning_modules.ubt.destinations import exp_entropy, expected_variety, surprise_p


def counts(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def test_with_one_destination_it_is_fishers_exact_test() -> None:
    exact = hypergeom(80, 15, 16).sf(13)
    assert surprise_p(counts(0, 14), 2, counts(0, 1), 63) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_share_of_all_permutations(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gone, others = generator.poisson(0.8, 8), generator.poisson(3, 8)
    stayed, others_stayed = 9, 90
    everybody = np.append(gone + others, stayed + others_stayed)
    surprise = np.zeros(9)
    went = everybody[:8] > 0
    surprise[:8][went] = -np.log(everybody[:8][went] / everybody.sum())
    drawn = generator.multivariate_hypergeometric(everybody, gone.sum() + stayed, size=100_000)
    share = (drawn @ surprise >= gone @ surprise[:8] - 1e-9).mean()
    assert surprise_p(gone, stayed, others, others_stayed) == pytest.approx(share, abs=0.01)


def test_at_chance_it_is_uniform() -> None:
    generator = np.random.default_rng(0)
    everybody = np.append(generator.poisson(4, 10), 150)
    found = []
    for _ in range(400):
        mine = generator.multivariate_hypergeometric(everybody, 16)
        others = everybody - mine
        found.append(surprise_p(mine[:-1], int(mine[-1]), others[:-1], int(others[-1])))
    for share in (0.5, 0.2, 0.05):
        assert np.mean(np.array(found) <= share) == pytest.approx(share, abs=0.05)


def test_whoever_stays_is_no_surprise() -> None:
    assert surprise_p(counts(0, 0), 16, counts(40, 20), 4) == 1
    assert surprise_p(counts(0, 0), 0, counts(0, 0), 0) == 1


def test_many_pictures_are_no_overflow() -> None:
    generator = np.random.default_rng(0)
    p = surprise_p(generator.poisson(0.5, 100), 30, generator.poisson(2, 100), 800)
    assert 0 < p < 1
    assert surprise_p(counts(*[2] * 60), 8, counts(*[0] * 60), 1000) < 1e-90


@pytest.mark.parametrize(
    ("found", "expected"), [((), 0.0), ((0, 9), 1.0), ((1, 1, 1, 0, 1), 4.0), ((2, 2, 2), 3.0), ((3, 1), 1.7548)]
)
def test_exp_entropy_counts_equally_frequent_words(found: tuple[int, ...], expected: float) -> None:
    assert exp_entropy(counts(*found)) == pytest.approx(expected, abs=1e-4)


def test_exp_entropy_is_that_of_its_formula() -> None:
    found = np.random.default_rng(0).integers(1, 30, 7)
    shares = (found / found.sum()).tolist()
    assert exp_entropy(found) == pytest.approx(math.prod(share**-share for share in shares))


def test_pictures_of_anything_go_to_what_there_is() -> None:
    frequencies = counts(100, 100, 100, 0)
    assert expected_variety(frequencies, 0, 0) == 0
    assert expected_variety(frequencies, 0, 1) == pytest.approx(1)
    # Two words are left, of which both are drawn or one.
    assert expected_variety(frequencies, 0, 2) == pytest.approx(1.5, abs=0.05)
    assert expected_variety(frequencies, 0, 10_000) == pytest.approx(2, abs=1e-3)
    assert expected_variety(counts(5, 0), 0, 3) == 0
