from __future__ import annotations

import pytest
import torch
from torch import nn

from untrigger.lightning_modules.batch_norm import RunningStatisticsKept


def test_batches_have_their_own_statistics_and_the_running_ones_stay() -> None:
    norm, plain = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    images = 4 + 2 * torch.randn(8, 3, 5, 5)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    with RunningStatisticsKept(nn.Sequential(norm)):
        inside = norm(images)
    assert torch.equal(inside, plain(images))
    assert all(torch.equal(norm.state_dict()[name], tensor) for name, tensor in before.items())
    norm(images)
    assert torch.equal(norm.running_mean, plain.running_mean)


def test_in_evaluation_nothing_is_different() -> None:
    norm = nn.BatchNorm1d(3)
    norm(torch.randn(8, 3) + 5)
    norm.eval()
    rows = torch.randn(8, 3)
    with RunningStatisticsKept(norm):
        inside = norm(rows)
    assert torch.equal(inside, norm(rows))


def test_norms_are_as_before_after_an_error_and_those_that_track_nothing_too() -> None:
    norms = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(RuntimeError, match="boom"), RunningStatisticsKept(norms):
        raise RuntimeError("boom")
    assert [norm.track_running_stats for norm in norms] == [True, False]
