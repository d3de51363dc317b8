from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from untrigger.callbacks.measures.ranking import ranking_figures


def test_figures_are_those_of_the_definitions() -> None:
    score = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    figures = ranking_figures(score, np.array([True, False, True, False, False]), (1, 2, 3, 9))
    assert figures["roc_auc"] == pytest.approx(5 / 6)
    assert figures["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert [figures[f"precision_at_{k}"] for k in (1, 2, 3, 9)] == pytest.approx([1, 1 / 2, 2 / 3, 2 / 5])


def test_pairs_of_the_same_score_stand_in_no_order() -> None:
    score = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    for poisoned in permutations([True, False, False, False]):
        figures = ranking_figures(score, np.array([False, *poisoned]), (1, 3))
        assert figures["roc_auc"] == pytest.approx((0 + 3 / 2) / 4)
        assert [figures["precision_at_1"], figures["precision_at_3"]] == pytest.approx([0, (2 / 4) / 3])


def test_a_score_that_is_none_is_the_least_suspicious_and_large_ones_are_not_saturated() -> None:
    score = torch.tensor([torch.nan, 1e8, 1e7, -1e9])
    assert ranking_figures(score, np.array([False, True, False, False]), ())["roc_auc"] == 1
    assert ranking_figures(score, np.array([True, False, False, False]), ())["roc_auc"] == 0


def test_scores_that_are_all_alike_say_nothing() -> None:
    figures = ranking_figures(torch.zeros(4), np.array([True, False, False, False]), (2,))
    assert figures == pytest.approx({"roc_auc": 0.5, "average_precision": 0.25, "precision_at_2": 0.25})
