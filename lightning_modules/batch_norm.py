"""Batch norm, where one module sees several batches in a step."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..contracts import UserMistake

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class RunningStatisticsKept:
    """Inside, batches in training are normalised with their own statistics and leave the running ones as they are.

    Batch norms, synchronised ones included, write to copies meanwhile. Nothing else of them is different, so that what
    autograd keeps of a pass is what it keeps of one outside. It can be entered again after it was left.

    Args:
        module: Whose batch norms; in evaluation nothing is different.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        norms = [norm for norm in self._module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
        self._kept = [(norm, name, getattr(norm, name)) for norm in norms for name in _BUFFERS]
        for norm, name, buffer in self._kept:
            setattr(norm, name, buffer.clone())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for norm, name, buffer in self._kept:
            setattr(norm, name, buffer)
        self._kept = []


def check_synchronised(module: nn.Module, device: torch.device) -> None:
    """Check that batch norms that are synchronised over ranks will train on a GPU.

    Args:
        module: What is trained.
        device: Where.

    Raises:
        UserMistake: If they will not: there is no such kernel for the CPU.
    """
    if device.type == "cpu" and any(isinstance(norm, nn.SyncBatchNorm) for norm in module.modules()):
        raise UserMistake(
            "trainer.sync_batchnorm synchronises batch norm over GPUs only: set it to false to train on CPUs, where "
            "each rank's batch norm has the statistics of its own pairs"
        )
