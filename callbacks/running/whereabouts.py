"""Reports which step each rank has reached, so that a rank that holds up the others can be named."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from torch.distributed import Store  # type: ignore[attr-defined]  # not in its __all__

_AT = "untrigger/at"


class _Report(NamedTuple):
    """What a rank says of itself, again and again."""

    beat: int
    """How often it has said something: a rank that is stopped says nothing any more."""
    steps: int
    """How many steps it has begun, of whatever kind."""
    waits: bool
    """Whether it is in a collective."""
    where: str


class Whereabouts:
    """Reports, through the store of the process group, which step this rank is at and what it does there.

    Args:
        store: Store of the process group.
        rank: This process.
        ranks: How many there are.
    """

    def __init__(self, store: Store, rank: int, ranks: int) -> None:
        self._store, self._rank, self._ranks = store, rank, ranks
        self._beat = 0
        self._steps, self._step = 0, "the start"

    def begin(self, step: str) -> None:
        """Note that a step begins: its kind and number, as a message names it."""
        self._steps += 1
        self._step = step

    @property
    def step(self) -> str:
        """The step that this rank is at."""
        return self._step

    def report(self) -> None:
        """Write it down. Called by a thread beside the main one, which may wait in a collective.

        Raises:
            RuntimeError: If the process that kept the store is gone.
        """
        self._beat += 1
        waits, doing = _main_thread()
        where = self._step if waits else f"{self._step}, in {doing}"
        self._store.set(f"{_AT}/{self._rank}", f"{self._beat} {self._steps} {int(waits)} {where}")

    def missing(self, seconds: float) -> str:
        """Describe which ranks the others wait for.

        Args:
            seconds: How long a rank is listened for, to detect one that is stopped.

        Raises:
            RuntimeError: If the process that kept the store is gone.
        """
        before = self._reports()
        time.sleep(seconds)
        now = self._reports()
        silent = {rank for rank in now if rank in before and now[rank].beat == before[rank].beat}
        silent -= {self._rank}
        unknown = set(range(self._ranks)) - set(now) - {self._rank}
        last = min((report.steps for report in now.values()), default=0)
        late = {rank for rank, report in now.items() if not report.waits or report.steps < max(self._steps, last)}
        named = sorted(silent | unknown or late - {self._rank})
        if not named:
            return "no rank is late"
        return "; ".join(
            f"rank {rank} did not come, and was "
            + (f"last at {now[rank].where}" if rank in now else "never there")
            + (", silent since" if rank in silent else "")
            for rank in named
        )

    def _reports(self) -> dict[int, _Report]:
        found = {}
        for rank in range(self._ranks):
            key = f"{_AT}/{rank}"
            if self._store.check([key]):
                beat, steps, waits, where = self._store.get(key).decode().split(" ", 3)
                found[rank] = _Report(int(beat), int(steps), waits == "1", where)
        return found


def _main_thread() -> tuple[bool, str]:
    """Whether the main thread is in a collective; else the function that it is in."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    doing = "" if frame is None else f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
    while frame is not None:
        # The gradients of a distributed model are summed where the engine of autograd runs.
        if "torch/distributed" in frame.f_code.co_filename or frame.f_code.co_name == "_engine_run_backward":
            return True, ""
        frame = frame.f_back
    return False, doing
