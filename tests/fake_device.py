"""A GPU that is not there: its tensors have a shape and a device and hold nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from training import quiet_trainer

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
_INDEXING = {aten.index, aten.index_put, aten.index_put_}


class Waited(AssertionError):
    """The host would have waited for the device."""


class DevicesMixed(AssertionError):
    """An operation has tensors of two devices."""


class FakeGPU(TorchDispatchMode):
    """Inside, what lies on the CPU is computed, and what lies on ``cuda`` is only checked: shapes, kinds and devices.

    ``FakeTensorMode`` does the checking. What is copied from the device to the host has numbers there, though no true
    ones (floats are drawn, integers are 0, booleans are true), so that the host's code runs.

    Attributes:
        strict: Whether what waits for the device raises, as under ``torch.cuda.set_sync_debug_mode("error")``: reading
            a number, a shape that depends on numbers, and a copy that is not said to be ``non_blocking``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict = False
        self._draws = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = [_device(tensor) for tensor in tensors]
        asked = kwargs.get("device")
        if "cuda" not in devices and (asked is None or torch.device(asked).type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in _INDEXING and len(set(devices)) > 1:
            raise DevicesMixed(f"{func}: an index and what it is of lie on different devices")
        if packet is aten._local_scalar_dense:
            self._wait(func)
            return _item(self._numbers(args[0]))
        if packet is aten.copy_:
            return self._copy(func, args, kwargs)
        if packet is aten._to_copy and len({devices[0], torch.device(asked or devices[0]).type}) > 1:
            self._wait_for_a_copy(func, kwargs.get("non_blocking", False))
        try:
            result = func(*args, **kwargs)
        except DynamicOutputShapeException as error:
            raise Waited(f"{error}: how large it becomes depends on the numbers") from error
        return tree_map(self._on_its_device, result)

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        target, source = args[0], args[1]
        if _device(target) != _device(source):
            self._wait_for_a_copy(func, args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if _device(target) == "cpu":
            with unset_fake_temporarily():
                return target.copy_(self._numbers(source))
        return func(*args, **kwargs)

    def _on_its_device(self, leaf: Any) -> Any:
        return self._numbers(leaf) if isinstance(leaf, FakeTensor) and _device(leaf) == "cpu" else leaf

    def _numbers(self, tensor: Tensor) -> Tensor:
        shape, dtype = tuple(tensor.shape), tensor.dtype
        with unset_fake_temporarily():
            if dtype.is_floating_point:
                return torch.rand(shape, generator=self._draws).to(dtype)
            return torch.full(shape, dtype == torch.bool, dtype=dtype)

    def _wait_for_a_copy(self, func: Any, non_blocking: bool) -> None:
        if not non_blocking:
            self._wait(f"{func}, which is not said to be non_blocking")

    def _wait(self, what: object) -> None:
        if self.strict:
            raise Waited(str(what))


def _item(number: Tensor) -> Any:
    with unset_fake_temporarily():
        return number.item()


def _device(tensor: Tensor) -> str:
    return tensor.fake_device.type if isinstance(tensor, FakeTensor) else tensor.device.type


class Bench:
    """A module, a trainer and a data module on the device, without a loop that runs.

    Args:
        gpu: The device.
        folder: The run's.
    """

    def __init__(self, gpu: FakeGPU, folder: Path) -> None:
        self.gpu = gpu
        self.trainer: Trainer = quiet_trainer(folder, max_epochs=-1, reload_dataloaders_every_n_epochs=1)
        strategy: Any = self.trainer.strategy
        strategy._root_device, strategy.precision_plugin = GPU, MixedPrecision("bf16-mixed", "cuda")
        self.logged: dict[str, Any] = {}

    def attach(self, module: Any, data: LightningDataModule, stage: str = "fit") -> None:
        """Bring the module to the device and everything together."""
        self.trainer.strategy._lightning_module = module
        module.trainer = self.trainer
        self.trainer._data_connector.attach_datamodule(module, data)
        data.setup(stage)
        module.to(GPU)
        vars(module)["log"] = lambda name, value, **_: self.logged.update({name: value})
        vars(module)["log_dict"] = lambda values, **_: self.logged.update(values)

    def batch(self, loader: Any) -> Any:
        """The first batch of a loader, transferred as Lightning does it. Nothing waits for that."""
        module: LightningModule = self.trainer.lightning_module
        taken = next(iter(loader))
        with self.steps():
            return module._apply_batch_transfer_handler(taken, GPU, 0)

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Inside, nothing may wait for the device, in the run's precision."""
        self.gpu.strict = True
        try:
            with self.trainer.precision_plugin.forward_context():
                yield
        finally:
            self.gpu.strict = False


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    """The device, with autocast."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    # In inference mode operations arrive whole, and torch looks for a driver inside of them.
    monkeypatch.setattr("torch.inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext())
    # Below, so that torch does not look for a driver; what it would make of the host's tensors is computed instead.
    with FakeTensorMode(allow_non_fake_inputs=True), FakeGPU() as gpu:
        yield gpu
