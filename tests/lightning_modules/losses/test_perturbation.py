from __future__ import annotations

import pytest
import torch
from features import unit

from untrigger.lightning_modules.losses import PerturbationLoss


def test_it_is_the_mean_squared_distance_as_long_as_that_is_below_the_threshold() -> None:
    now, before = unit(5, 3, 0), unit(5, 3, 1)
    expected = (
        sum(
            sum((float(a) - float(b)) ** 2 for a, b in zip(*rows, strict=True))
            for rows in zip(now, before, strict=True)
        )
        / 5
    )
    term, distance = PerturbationLoss(4.0)(now, before)
    assert float(term) == float(distance) == pytest.approx(expected)
    term, distance = PerturbationLoss(expected - 0.01)(now, before)
    assert (float(term), float(distance)) == (0.0, pytest.approx(expected))
    assert float(PerturbationLoss(2.15)(now, -now)[1]) == pytest.approx(4.0)


def test_features_are_pushed_below_the_threshold_and_let_be_above_it() -> None:
    before = unit(5, 3, 1)
    for threshold, pushes in ((4.0, True), (0.0, False)):
        now = unit(5, 3, 0).requires_grad_()
        term, distance = PerturbationLoss(threshold)(now, before)
        assert not distance.requires_grad
        term.backward()
        assert now.grad is not None
        expected = 2 * (now.detach() - before) / 5 if pushes else torch.zeros_like(before)
        torch.testing.assert_close(now.grad, expected)


def test_half_precision_features_are_compared_in_float32() -> None:
    now, before = (unit(4, 8, seed, torch.float32).bfloat16() for seed in (0, 1))
    term, _ = PerturbationLoss(4.0)(now, before)
    assert term.dtype == torch.float32
    torch.testing.assert_close(term, (now.float() - before.float()).square().sum(dim=1).mean())


@pytest.mark.parametrize("shape", [(4, 3), (5,), (5, 4)])
def test_features_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features of shape"):
        PerturbationLoss(1.0)(torch.zeros(5, 3), torch.zeros(shape))
