from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.feature_pool import FeaturePool


def features(count: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_oldest_go_first() -> None:
    pool, new = FeaturePool(5, 4), features(12)
    for start in range(0, 12, 3):
        pool.add(new[start : start + 3])
    held = {tuple(row) for row in pool.features.tolist()}
    assert held == {tuple(row) for row in new[7:].tolist()}


def test_of_a_batch_that_is_larger_than_the_pool_the_last_are_kept() -> None:
    pool, new = FeaturePool(5, 4), features(12)
    pool.add(new)
    assert {tuple(row) for row in pool.features.tolist()} == {tuple(row) for row in new[7:].tolist()}


def test_the_nearest_is_looked_for_among_what_is_there() -> None:
    pool, members = FeaturePool(10, 4), features(3)
    pool.add(members)
    asked = -members.mean(dim=0, keepdim=True)  # further from all of them than from nothing, which is zeros
    nearest = pool.nearest(asked.requires_grad_())
    torch.testing.assert_close(nearest[0], members[(asked @ members.T).argmax()])
    assert not nearest.requires_grad or torch.autograd.grad(nearest.sum(), asked)[0].abs().sum() == 0


def test_an_empty_pool_gives_the_features_back_with_their_gradient() -> None:
    asked = features(2).requires_grad_()
    nearest = FeaturePool(3, 4).nearest(asked)
    torch.testing.assert_close(nearest, asked)
    assert (torch.autograd.grad(nearest.sum(), asked)[0] == 1).all()


def test_a_checkpoint_keeps_it() -> None:
    pool, other = FeaturePool(4, 4), FeaturePool(4, 4)
    pool.add(features(3))
    other.load_state_dict(pool.state_dict())
    for each in (pool, other):
        each.add(features(2, seed=1))
    torch.testing.assert_close(other.features, pool.features, rtol=0, atol=0)


def test_a_pool_holds_something() -> None:
    with pytest.raises(UserMistake, match=r"model\.pool_size is 0"):
        FeaturePool(0, 4)
