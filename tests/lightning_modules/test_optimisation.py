from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import torch
from torch import nn

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.optimisation import adamw, decay_groups, warmup_cosine, with_schedule


def test_schedule_warms_up_peaks_and_ends_at_zero() -> None:
    factors = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[110] == 0
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))


def test_schedule_without_warm_up_and_beyond_the_end() -> None:
    assert warmup_cosine(0, 0, 10) == 1
    assert warmup_cosine(25, 0, 10) == 0
    assert warmup_cosine(3, 10, 5) == pytest.approx(0.4)


def test_gains_biases_and_scalars_have_no_decay_and_frozen_parameters_no_group() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    module.register_parameter("logit_scale", nn.Parameter(torch.tensor(1.0)))
    module[2].weight.requires_grad_(False)
    decayed, free = decay_groups(module, 0.3)
    assert decayed["weight_decay"] == 0.3
    assert free["weight_decay"] == 0
    assert [parameter.shape for parameter in decayed["params"]] == [module[0].weight.shape]
    assert sorted(parameter.ndim for parameter in free["params"]) == [0, 1, 1, 1, 1]


def test_optimiser_follows_the_schedule() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = adamw([{"params": [parameter]}], 0.1, (0.9, 0.99), 1e-6)
    scheduler = with_schedule(optimizer, 2, 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.sum().backward()
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.05])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    assert optimizer.defaults["eps"] == 1e-6


@pytest.mark.parametrize(("warmup", "told"), [(100, True), (8, False)])
def test_a_run_that_is_too_short_for_its_warm_up_is_told(
    warmup: int, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = adamw([{"params": [nn.Parameter(torch.ones(2, 2))]}], 0.1, (0.9, 0.99), 1e-6)
    with caplog.at_level(logging.INFO):
        with_schedule(optimizer, warmup, 8)
    line = "model.warmup_steps is 100 and the run has 8 steps: the learning rate gets to 0.08 of model.lr"
    assert (line in caplog.text) == told


def test_a_module_that_is_frozen_as_a_whole_is_one_line() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(UserMistake, match="no parameter of the module is trained"):
        adamw(decay_groups(frozen, 0.1), 0.1, (0.9, 0.99), 1e-6)
