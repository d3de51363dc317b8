"""Ranks that end because of another. They are forks of this process, which has imported all that they need."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from untrigger.callbacks import EndTogether


def fork(body: Callable[[], None], said: Path) -> int:
    """The id of a process that runs a function, with what it tells in a file; its exit code is 77 where it returns."""
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = said.open("a", buffering=1)
        body()
        os._exit(77)
    return child


def joined(folder: Path, rank: int, grace: float) -> tuple[EndTogether, Any]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    trainer: Any = SimpleNamespace(world_size=2, global_rank=rank, local_rank=rank, node_rank=0)
    together = EndTogether(poll_seconds=0.1, grace_seconds=grace)
    together.setup(trainer, None, "fit")  # type: ignore[arg-type]
    return together, trainer


def run(folder: Path, failing: int) -> list[tuple[int, str]]:
    """Exit codes of two ranks, of which one fails, and what they tell."""

    def body(rank: int) -> None:
        together, trainer = joined(folder, rank, grace=1.0)
        dist.barrier()
        if failing < 0:
            together.teardown(trainer, None, "fit")  # type: ignore[arg-type]
            print("all well")
            os._exit(0)
        if rank == failing:
            together.on_exception(trainer, None, KeyError("x"))  # type: ignore[arg-type]
            time.sleep(600)  # as a collective without the others would
        dist.all_reduce(torch.ones(1))

    ranks = [fork(lambda rank=rank: body(rank), folder / f"said.{rank}") for rank in range(2)]  # type: ignore[misc]
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in ranks]
    return [(code, (folder / f"said.{rank}").read_text()) for rank, code in enumerate(codes)]


def test_every_rank_ends_with_the_reason_of_the_one_that_failed(tmp_path: Path) -> None:
    failed, other = run(tmp_path, 0)
    assert (failed[0], other[0]) == (1, 1), other[1]
    assert "untrigger: error: rank 0: KeyError: 'x'" in failed[1].splitlines()
    assert "untrigger: error: rank 1 ends because of rank 0: KeyError: 'x'" in other[1].splitlines()


def test_a_run_that_ends_well_ends_quietly(tmp_path: Path) -> None:
    assert run(tmp_path, -1) == [(0, "all well\n")] * 2


@pytest.mark.parametrize("both_fail", [False, True])
def test_a_rank_that_another_has_started_ends_after_it(both_fail: bool, tmp_path: Path) -> None:
    said, alive = tmp_path / "said.1", tmp_path / "alive"

    def second() -> None:
        together, trainer = joined(tmp_path, 1, grace=30.0)
        if both_fail:
            together.on_exception(trainer, None, KeyError("x"))  # type: ignore[arg-type]
            print("rank 1 had its end")
            os._exit(1)
        try:
            dist.all_reduce(torch.ones(1))
        except RuntimeError as error:  # the other one is gone
            together.on_exception(trainer, None, error)  # type: ignore[arg-type]

    def first() -> None:
        child = fork(second, said)
        together, trainer = joined(tmp_path, 0, grace=30.0)
        together.on_exception(trainer, None, KeyError("x"))  # type: ignore[arg-type]
        time.sleep(1)
        alive.write_text(str(os.waitpid(child, os.WNOHANG)[0] == 0))
        os._exit(0)

    starter = fork(first, tmp_path / "said.0")
    assert os.waitstatus_to_exitcode(os.waitpid(starter, 0)[1]) == 0, (tmp_path / "said.0").read_text()
    assert alive.read_text() == "True"
    end = "rank 1 had its end" if both_fail else "untrigger: error: rank 1 ends because of rank 0: KeyError: 'x'"
    limit = time.monotonic() + 60
    while not said.read_text().endswith(f"{end}\n"):
        assert time.monotonic() < limit, said.read_text()
        time.sleep(0.05)
