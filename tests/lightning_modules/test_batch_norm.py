from __future__ import annotations

import pytest
import torch
from torch import nn

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.batch_norm import RunningStatisticsKept, check_synchronised


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


def test_it_can_be_entered_again_and_gives_the_very_buffers_back() -> None:
    norm = nn.BatchNorm1d(3)
    buffers, kept = list(norm.buffers()), RunningStatisticsKept(norm)
    for _ in range(2):
        with kept:
            norm(torch.randn(8, 3) + 5)
    assert all(now is before for now, before in zip(norm.buffers(), buffers, strict=True))
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_synchronised_batch_norm_keeps_names_and_its_running_statistics_are_kept_too() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    images = torch.randn(6, 3, 5, 5)
    expected = plain(images)
    names = list(plain.state_dict())
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    assert isinstance(synchronised[1], nn.SyncBatchNorm)
    assert list(synchronised.state_dict()) == names
    before = {name: tensor.clone() for name, tensor in synchronised.state_dict().items()}
    with RunningStatisticsKept(synchronised):
        # Without other ranks it is batch norm.
        torch.testing.assert_close(synchronised(images), expected)
    assert all(torch.equal(synchronised.state_dict()[name], tensor) for name, tensor in before.items())
    synchronised(images)
    assert int(synchronised[1].num_batches_tracked) == 2


def test_synchronising_on_a_cpu_is_reported_in_one_line() -> None:
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(4)))
    with pytest.raises(UserMistake, match=r"trainer\.sync_batchnorm synchronises batch norm over GPUs only: set it to"):
        check_synchronised(synchronised, torch.device("cpu"))
    check_synchronised(synchronised, torch.device("cuda"))
    check_synchronised(nn.BatchNorm2d(4), torch.device("cpu"))
