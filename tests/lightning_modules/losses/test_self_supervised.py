from __future__ import annotations

import math

import pytest
import torch
from features import assert_gradient, unit
from torch import Tensor

from untrigger.lightning_modules.losses import SelfSupervisedLoss


def naive(samples: Tensor, views: Tensor, scale: float) -> float:
    total = 0.0
    for i, sample in enumerate(samples):
        row = [math.exp(scale * float(sample @ view)) for view in views]
        total -= math.log(row[i] / sum(row))
    return total / len(samples)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_against_a_naive_reference(scale: float) -> None:
    samples, views = unit(7, 5, 0), unit(7, 5, 1)
    loss = SelfSupervisedLoss()(samples, views, torch.tensor(scale))
    assert float(loss) == pytest.approx(naive(samples, views, scale), rel=1e-5)
    # From samples to views only: the other way is another number.
    assert float(loss) != pytest.approx(naive(views, samples, scale), rel=1e-3)


def test_gradient_of_features_and_temperature() -> None:
    assert_gradient(SelfSupervisedLoss(), naive)


def test_the_logits_are_float32_under_autocast() -> None:
    samples, views = unit(16, 8, 0).float(), unit(16, 8, 1).float()
    plain = SelfSupervisedLoss()(samples, views, torch.tensor(100.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = SelfSupervisedLoss()(samples, views, torch.tensor(100.0))
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        SelfSupervisedLoss()(torch.zeros(3, 4), torch.zeros(2, 4), torch.tensor(1.0))
