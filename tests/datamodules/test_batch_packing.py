from __future__ import annotations

import pickle
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from untrigger.datamodules.batch_packing import pack, unpack

PICTURES = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
TENSORS = {
    "contiguous": PICTURES,
    "channels last": PICTURES.contiguous(memory_format=torch.channels_last),
    "transposed": torch.arange(12).view(3, 4).T,
    "part": torch.arange(20).view(4, 5)[1:3],
    "every other": torch.arange(20)[::2],
    "of one": torch.tensor(3.5),
    "empty": torch.zeros(0, 7, dtype=torch.int64),
    "large": torch.arange(300_000),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_what_arrives_is_what_was_sent(tensor: Tensor) -> None:
    arrived = unpack(pickle.loads(pickle.dumps(pack({"key": ["a"], "some": {"thing": tensor}}))))
    assert arrived["key"] == ["a"]
    found = arrived["some"]["thing"]
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor)
    found.add_(1)  # it is the receiver's own


def test_the_memory_format_is_kept() -> None:
    found = unpack(pickle.loads(pickle.dumps(pack(TENSORS["channels last"]))))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("least", [0, 1 << 20])
def test_all_travels_in_parcels_where_shared_memory_is_full(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    full = Mock(side_effect=RuntimeError("unable to allocate shared memory(shm) for file </t>: No space left (28)"))
    monkeypatch.setattr(Tensor, "share_memory_", full)
    packed: Any = pack(TENSORS["large"], least)
    assert not isinstance(packed, Tensor)
    assert torch.equal(unpack(packed), TENSORS["large"])


@pytest.mark.parametrize(("tensor", "travels"), [(TENSORS["large"], True), (PICTURES, False)])
def test_only_large_tensors_take_shared_memory(tensor: Tensor, travels: bool) -> None:
    packed: Any = pack(tensor)
    assert isinstance(packed, Tensor) == travels
    assert isinstance(pack(tensor, least=0), Tensor)
    assert tensor.is_shared()
