from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.lightning_modules.losses import ForgettingLoss, RetentionLoss


def features(count: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_forgetting_is_the_mean_excess_over_unrelated_pairs() -> None:
    images, texts = features(5, 0), features(5, 1)
    unrelated = torch.tensor([0.1, -0.2, 0.0, -1.0, 0.5])
    expected = sum(max(float(images[i] @ texts[i]) - float(unrelated[i]), 0.0) for i in range(5)) / 5
    assert float(ForgettingLoss()(images, texts, unrelated)) == pytest.approx(expected, rel=1e-5)
    scalar = sum(max(float(images[i] @ texts[i]) - 0.1, 0.0) for i in range(5)) / 5
    assert float(ForgettingLoss()(images, texts, torch.tensor(0.1))) == pytest.approx(scalar, rel=1e-5)


def test_what_is_forgotten_is_pushed_no_further_and_the_rest_away() -> None:
    texts = features(2, 1)
    images = torch.stack([texts[0], -texts[1]]).requires_grad_()
    loss = ForgettingLoss()(images, texts, torch.tensor(0.0))
    loss.backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, torch.stack([texts[0] / 2, torch.zeros(8)]))


def test_forgetting_is_bounded() -> None:
    texts = features(4, 1)
    assert float(ForgettingLoss()(texts, texts, torch.tensor(-1.0))) == pytest.approx(2.0)
    assert float(ForgettingLoss()(-texts, texts, torch.tensor(0.3))) == 0


def test_retention_is_the_mean_cosine_distance() -> None:
    now, before = features(5, 0).requires_grad_(), features(5, 1)
    loss = RetentionLoss()(2 * now, 3 * before)
    assert float(loss.detach()) == pytest.approx(1 - float((now.detach() * before).sum(dim=1).mean()), rel=1e-5)
    assert float(RetentionLoss()(before, before)) == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert now.grad is not None
    assert float((now.grad * before).sum()) < 0  # a step against the gradient goes towards the frozen features


@pytest.mark.parametrize("shapes", [((3, 8), (4, 8)), ((3, 8), (3, 4)), ((8,), (8,))])
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    first, second = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="features of shape"):
        ForgettingLoss()(first, second, torch.tensor(0.0))
    with pytest.raises(ValueError, match="features of shape"):
        RetentionLoss()(first, second)
