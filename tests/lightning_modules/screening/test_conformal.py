from __future__ import annotations

import numpy as np
import pytest

from untrigger.lightning_modules.screening import any_p, conformal_p, rank_p


def test_a_p_value_counts_what_is_at_least_as_suspicious() -> None:
    assert conformal_p([5.0, 2.0, 2.5, -1.0], [1.0, 2.0, 3.0]).tolist() == [1 / 4, 3 / 4, 2 / 4, 1.0]
    assert rank_p([5.0, 2.0, 2.0, -1.0]).tolist() == [1 / 4, 3 / 4, 3 / 4, 1.0]


@pytest.mark.parametrize("law", ["standard_cauchy", "standard_normal", "coin"])
def test_the_rate_of_false_alarms_holds_whatever_the_scores_are(law: str) -> None:
    draws = np.random.default_rng(0)

    def scores(count: int) -> np.ndarray:
        return draws.integers(0, 2, count).astype(float) if law == "coin" else getattr(draws, law)(count)

    for rate in (0.01, 0.05, 0.2):
        shares = [(conformal_p(scores(50), scores(199)) <= rate).mean() for _ in range(1000)]
        # The mean of a thousand sets: its standard error is about sqrt(rate / 200 / 1000) of each reference's own.
        assert np.mean(shares) <= rate + 5 * np.std(shares) / np.sqrt(1000)
        if law != "coin":  # and no less than it has to
            assert np.mean(shares) >= rate - 5 * np.std(shares) / np.sqrt(1000)


def test_it_holds_for_several_detectors_together_whatever_they_have_in_common() -> None:
    draws = np.random.default_rng(0)
    for shared in (0.0, 0.5, 1.0):
        shares = []
        for _ in range(1000):
            common, own = draws.standard_normal(249), draws.standard_normal((3, 249))
            each = shared * common + (1 - shared) * own
            p = any_p([conformal_p(scores[:50], scores[50:]) for scores in each])
            shares.append((p <= 0.1).mean())
        assert np.mean(shares) <= 0.1 + 5 * np.std(shares) / np.sqrt(1000)


def test_without_clean_pictures_no_more_than_the_rate_of_all_are_flagged() -> None:
    draws = np.random.default_rng(0)
    for scores in (draws.standard_normal(500), draws.integers(0, 4, 500), np.zeros(500)):
        for rate in (0.002, 0.05, 0.3):
            assert (rank_p(scores) <= rate).mean() <= rate
    assert (rank_p(np.arange(500)) <= 0.05).sum() == 25


def test_what_stands_out_is_found_at_that_rate() -> None:
    draws = np.random.default_rng(0)
    p = conformal_p(draws.normal(6, 1, 100), draws.normal(0, 1, 199))
    assert (p == 1 / 200).all()
    assert any_p([p, p, p]).max() == pytest.approx(3 / 200)
    assert any_p([np.ones(3)] * 2).tolist() == [1, 1, 1]
