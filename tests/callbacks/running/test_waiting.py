"""Ranks that wait for one that does not come: they say for which, and can be ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from untrigger.callbacks import EndTogether
from untrigger.contracts import UserMistake
from untrigger.errors.lines import user_message

Rank = Callable[[EndTogether, Any], None]


def _rank(rank: int, folder: Path, timeout: float, body: Rank) -> None:
    sys.stderr = (folder / f"said.{rank}").open("w")
    signal.signal(signal.SIGTERM, lambda *_: None)  # as a run has it, which ends between two steps
    group: dict[str, Any] = {"init_method": f"file://{folder}/meet", "timeout": timedelta(seconds=timeout)}
    dist.init_process_group("gloo", rank=rank, world_size=2, **group)
    trainer: Any = SimpleNamespace(
        world_size=2, global_rank=rank, local_rank=rank, node_rank=0, current_epoch=3, global_step=7
    )
    together = EndTogether(poll_seconds=0.1, grace_seconds=2.0, terminate_seconds=0.5)
    together.setup(trainer, None, "fit")  # type: ignore[arg-type]
    together.on_train_batch_start(trainer, None, None, rank)  # type: ignore[arg-type]
    dist.barrier()
    (folder / f"there.{rank}").touch()
    try:
        body(together, trainer)
    except Exception as error:
        together.on_exception(trainer, None, error)  # type: ignore[arg-type]
        time.sleep(60)  # as a collective in its end may


def _waits(together: EndTogether, trainer: Any) -> None:
    if trainer.global_rank == 0:
        dist.all_reduce(torch.ones(1))
    else:
        time.sleep(120)


def _run(
    folder: Path, timeout: float = 60, end: int | None = None, freeze: bool = False, body: Rank = _waits
) -> list[tuple[Any, str]]:
    """Exit codes and the errors that two ranks tell."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, folder, timeout, body)) for rank in range(2)]
    for process in ranks:
        process.start()
    try:
        if end is not None:
            _until(lambda: all((folder / f"there.{rank}").exists() for rank in range(2)))
            if freeze:
                os.kill(ranks[1].pid or 0, signal.SIGSTOP)
            os.kill(ranks[end].pid or 0, signal.SIGTERM)
        for process in ranks[:1] if freeze else ranks:
            process.join(60)
    finally:
        for process in ranks:
            process.kill()
    reported = [(folder / f"said.{rank}").read_text().strip().splitlines()[-1:] for rank in range(2)]
    return [(process.exitcode, "".join(line)) for process, line in zip(ranks, reported, strict=True)]


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_rank_that_waited_too_long_names_the_one_that_did_not_come(tmp_path: Path) -> None:
    (code, reported), (other, other_reported) = _run(tmp_path, timeout=1)
    assert (code, other) == (1, 1)
    waited = "rank 0 waited in vain at batch 0 of epoch 3: rank 1 did not come, and was last at batch 1 of epoch 3, in "
    assert reported.startswith(f"untrigger: error: {waited}_waits (test_waiting.py:")
    assert other_reported.startswith(f"untrigger: error: rank 1 ends because of {waited}")


@pytest.mark.parametrize("end", [0, 1])
def test_sigterm_to_one_rank_ends_all_of_them(end: int, tmp_path: Path) -> None:
    for code, reported in _run(tmp_path, end=end):
        assert code == 128 + signal.SIGTERM
        assert f"rank {end}: SIGTERM 0.5 s ago at batch {end} of epoch 3" in reported


def _worker_is_asked(together: EndTogether, trainer: Any) -> None:
    if trainer.global_rank == 0:
        worker = os.fork()
        if not worker:
            time.sleep(60)
        time.sleep(0.3)
        os.kill(worker, signal.SIGTERM)  # handled, and so it goes on
        time.sleep(1.5)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    dist.barrier()
    os._exit(0)


def test_sigterm_to_a_data_worker_ends_nothing(tmp_path: Path) -> None:
    assert _run(tmp_path, body=_worker_is_asked) == [(0, ""), (0, "")]


def test_sigterm_ends_a_rank_whose_peer_is_stopped(tmp_path: Path) -> None:
    (code, reported), _ = _run(tmp_path, end=0, freeze=True)
    assert code == 128 + signal.SIGTERM
    assert "rank 1 did not come, and was last at " in reported
    assert reported.endswith("silent since")


def test_a_rank_that_was_never_started_is_one_line() -> None:
    said = "Timed out after 3 seconds waiting for clients. 1/2 clients joined."
    reported = user_message(dist.DistStoreError(said))
    assert reported is not None
    assert reported.startswith("1 of 2 ranks came to the start of the run within end_together.timeout_seconds")


def test_a_time_is_above_zero() -> None:
    with pytest.raises(UserMistake, match="end_together: poll_seconds and the other times are above 0"):
        EndTogether(timeout_seconds=0)
