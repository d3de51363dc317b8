from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.detection import TwoGaussians


def drawn(lower: int, higher: int) -> np.ndarray:
    draws = np.random.default_rng(0)
    return np.concatenate([draws.normal(0.1, 0.02, lower), draws.normal(0.3, 0.05, higher)])


def test_two_kinds_of_numbers_are_told_apart() -> None:
    numbers = drawn(300, 2700)
    mixture = TwoGaussians.fitted(numbers)
    np.testing.assert_allclose(mixture.means, (0.1, 0.3), atol=0.01)
    np.testing.assert_allclose(mixture.spreads, (0.02, 0.05), atol=0.005)
    np.testing.assert_allclose(mixture.shares, (0.1, 0.9), atol=0.01)
    lower = mixture.higher_probability(numbers) < 0.5
    assert lower[:300].mean() > 0.95
    assert lower[300:].mean() < 0.01


def test_odds_and_probability_are_those_of_the_densities() -> None:
    mixture = TwoGaussians((0.0, 1.0), (0.5, 0.2), (0.25, 0.75))
    numbers = np.array([-0.5, 0.2, 0.9, 3.0])
    low, high = 0.25 * norm.pdf(numbers, 0.0, 0.5), 0.75 * norm.pdf(numbers, 1.0, 0.2)
    np.testing.assert_allclose(mixture.lower_odds(numbers), np.log(low) - np.log(high), rtol=1e-9)
    np.testing.assert_allclose(mixture.higher_probability(numbers), high / (low + high), rtol=1e-9)


def test_the_lower_component_comes_first_whatever_the_order_of_the_numbers() -> None:
    numbers = drawn(1500, 500)
    one, other = TwoGaussians.fitted(numbers), TwoGaussians.fitted(numbers[::-1])
    assert one.means[0] < one.means[1]
    np.testing.assert_allclose(one.means, other.means, atol=1e-6)


def test_what_is_not_finite_is_left_out_and_gets_no_odds() -> None:
    numbers = drawn(50, 50)
    mixture = TwoGaussians.fitted([*numbers, np.nan, np.inf])
    assert mixture == TwoGaussians.fitted(numbers)
    assert np.isnan(mixture.lower_odds([np.nan])).all()


def test_far_from_everything_the_probability_stays_in_its_range() -> None:
    mixture = TwoGaussians((0.0, 1.0), (1e-3, 1e-2), (0.5, 0.5))
    assert mixture.higher_probability([-100.0, 100.0]).tolist() == pytest.approx([1.0, 1.0])
    assert mixture.higher_probability([0.0]).tolist() == pytest.approx([0.0], abs=1e-12)


@pytest.mark.parametrize("numbers", [[], [1.0], [2.0, 2.0, 2.0], [np.nan, 1.0]])
def test_numbers_that_are_all_alike_are_refused(numbers: list[float]) -> None:
    with pytest.raises(UserMistake, match="two different numbers"):
        TwoGaussians.fitted(numbers)


def test_two_numbers_are_enough() -> None:
    assert TwoGaussians.fitted([0.0, 1.0]).means == pytest.approx((0.0, 1.0), abs=1e-3)
