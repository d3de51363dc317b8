"""Measure in milliseconds which number format a processor computes in faster."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIDE, _TIMES = 256, 5
_EMULATED = 0.8
"""Speed-up below which bfloat16 is emulated for certain: with instructions for it, it is about 2."""


@cache
def bfloat16_speedup() -> float:
    """How many times as fast this processor multiplies matrices in bfloat16 as in float32.

    Above 1 where it has instructions for it (AVX512-BF16, AMX, SVE); far below where torch emulates them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # where cores are busy, several would take as long as it takes them to meet
    try:
        return _seconds(torch.float32) / _seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


def slow_precision(precision: str, instead: str = "--trainer.precision 32-true") -> str | None:
    """What a user should know who asked for a precision that this processor only emulates; None if there is nothing.

    Args:
        precision: As ``Trainer(precision=...)`` has it, for a run on a CPU: ``16-mixed`` is ``bf16-mixed`` there.
        instead: The option that is faster.
    """
    if not precision.startswith(("bf16", "16-mixed")) or (speedup := bfloat16_speedup()) >= _EMULATED:
        return None
    return (
        f"this processor emulates bfloat16: a product of matrices takes {1 / speedup:.1f} times as long as in float32; "
        f"{instead} is faster here"
    )


def _seconds(dtype: torch.dtype) -> float:
    """The least of several, as other processes take their turns meanwhile."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    taken = []
    for _ in range(_TIMES + 1):  # the first one sets up the kernel
        started = time.perf_counter()
        matrix @ matrix
        taken.append(time.perf_counter() - started)
    return min(taken[1:])
