"""That the device catches what it is there to catch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fake_device import GPU, DevicesMixed, FakeGPU, Waited
from torch import Tensor, nn

WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x[0].tolist(),
    "nonzero": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "to the host": lambda x: x.cpu(),
    "a list to the device": lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
    "copied into": lambda x: torch.zeros(3).copy_(x[0]),
}
MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "added": lambda there, here: there + here,
    "multiplied": lambda there, here: there @ here.T,
    "taken": lambda there, here: there.gather(1, here.long()),
    "an index on the device, of what is not": lambda there, here: here[there[0].long()],
    "an index on the host, of what is not": lambda there, here: there[here[0].long()],
}


@pytest.mark.parametrize("what", WAITING)
def test_waiting_is_caught(what: str, gpu: FakeGPU) -> None:
    there = torch.ones(4, 3).to(GPU)
    gpu.strict = True
    with pytest.raises(Waited):
        WAITING[what](there)


@pytest.mark.parametrize("what", MIXED)
def test_two_devices_in_an_operation_are_caught(what: str, gpu: FakeGPU) -> None:
    here = torch.ones(4, 3)
    with pytest.raises((DevicesMixed, RuntimeError), match="device"):
        MIXED[what](here.to(GPU), here)


def test_a_step_of_its_own_kind_goes_through(gpu: FakeGPU) -> None:
    layer = nn.Linear(3, 5).to(GPU)
    gpu.strict = True
    with torch.autocast("cuda", torch.bfloat16):
        made = layer(torch.ones(4, 3).to(GPU, non_blocking=True))
    assert (made.device, made.dtype, tuple(made.shape)) == (GPU, torch.bfloat16, (4, 5))
    gpu.strict = False
    assert made.cpu().float().isfinite().all()
