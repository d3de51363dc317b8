from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import time
from types import SimpleNamespace

import torch
import torch.distributed as dist

from untrigger.callbacks import EndTogether
from untrigger.contracts import UserMistake

rank, failing, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
trainer = SimpleNamespace(world_size=3, global_rank=rank)
together = EndTogether(poll_seconds=0.1, grace_seconds=1.0)
together.setup(trainer, None, "fit")
dist.barrier()
if failing < 0:
    together.teardown(trainer, None, "fit")
    print("all well")
elif rank == failing:
    together.on_exception(trainer, None, {"mistake": UserMistake("no\\nshard"), "bug": KeyError("x")}[sys.argv[4]])
    time.sleep(600)  # as a collective without the others would
else:
    dist.all_reduce(torch.ones(1))
"""


def run(folder: Path, failing: int, kind: str = "") -> list[tuple[int, str, str]]:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(failing), str(folder), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    return [(rank.returncode, out, error) for rank, (out, error) in zip(ranks, said, strict=True)]


@pytest.mark.parametrize(
    ("failing", "kind", "code", "told"), [(1, "mistake", 2, "no shard"), (0, "bug", 1, "KeyError: 'x'")]
)
def test_every_rank_ends_with_the_reason_of_the_one_that_failed(
    failing: int, kind: str, code: int, told: str, tmp_path: Path
) -> None:
    for rank, (found, _, said) in enumerate(run(tmp_path, failing, kind)):
        assert found == code, said
        reason = f"rank {failing}: {told}"
        ends = reason if rank == failing else f"rank {rank} ends because of {reason}"
        assert f"untrigger: error: {ends}" in said.splitlines()


def test_a_run_that_ends_well_ends_quietly(tmp_path: Path) -> None:
    assert [(code, out) for code, out, _ in run(tmp_path, -1)] == [(0, "all well\n")] * 3
