from __future__ import annotations

import math

import pytest
import torch
from features import assert_gradient, unit
from torch import Tensor

from untrigger.lightning_modules.losses import ContrastiveLoss


def naive(images: Tensor, texts: Tensor, scale: float) -> float:
    total = 0.0
    size = len(images)
    for i in range(size):
        row = [math.exp(scale * float(images[i] @ texts[j])) for j in range(size)]
        column = [math.exp(scale * float(images[j] @ texts[i])) for j in range(size)]
        total -= math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))
    return total / (2 * size)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_against_a_naive_reference(scale: float) -> None:
    images, texts = unit(7, 5, 0), unit(7, 5, 1)
    loss = ContrastiveLoss()(images, texts, torch.tensor(scale))
    assert float(loss) == pytest.approx(naive(images, texts, scale), rel=1e-5)


def test_gradient_of_features_and_temperature() -> None:
    assert_gradient(ContrastiveLoss(), naive)


def test_matching_pairs_have_the_least_loss_and_one_pair_has_none() -> None:
    features = torch.eye(6)
    assert float(ContrastiveLoss()(features, features, torch.tensor(50.0))) < 1e-6
    assert float(ContrastiveLoss()(features[:1], features[:1], torch.tensor(50.0))) == 0


def test_the_logits_are_float32_under_autocast() -> None:
    images, texts = unit(16, 8, 0).float(), unit(16, 8, 1).float()
    plain = ContrastiveLoss()(images, texts, torch.tensor(100.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ContrastiveLoss()(images, texts, torch.tensor(100.0))
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 4\)"):
        ContrastiveLoss()(torch.zeros(3, 4), torch.zeros(2, 4), torch.tensor(1.0))
