"""Batch norm, where one module sees two kinds of batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Inside, batches in training are normalised with their own statistics and leave the running ones as they are.

    Args:
        module: Whose batch norms, synchronised ones included; in evaluation nothing is different.
    """
    tracking = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True
