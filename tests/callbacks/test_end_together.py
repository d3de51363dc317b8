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

rank, failing, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
trainer = SimpleNamespace(world_size=2, global_rank=rank, local_rank=rank, node_rank=0)
together = EndTogether(poll_seconds=0.1, grace_seconds=1.0)
together.setup(trainer, None, "fit")
dist.barrier()
if failing < 0:
    together.teardown(trainer, None, "fit")
    print("all well")
elif rank == failing:
    together.on_exception(trainer, None, KeyError("x"))
    time.sleep(600)  # as a collective without the others would
else:
    dist.all_reduce(torch.ones(1))
"""


def run(folder: Path, failing: int) -> list[tuple[int, str, str]]:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(failing), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    return [(rank.returncode, out, error) for rank, (out, error) in zip(ranks, said, strict=True)]


def test_every_rank_ends_with_the_reason_of_the_one_that_failed(tmp_path: Path) -> None:
    failed, other = run(tmp_path, 0)
    assert (failed[0], other[0]) == (1, 1), other[2]
    assert "untrigger: error: rank 0: KeyError: 'x'" in failed[2].splitlines()
    assert "untrigger: error: rank 1 ends because of rank 0: KeyError: 'x'" in other[2].splitlines()


def test_a_run_that_ends_well_ends_quietly(tmp_path: Path) -> None:
    assert [(code, out) for code, out, _ in run(tmp_path, -1)] == [(0, "all well\n")] * 2


CHILD = """
import subprocess
import sys
import time

rank, meet, both_fail = int(sys.argv[1]), sys.argv[2], bool(sys.argv[3])
child = subprocess.Popen([sys.executable, *sys.orig_argv[1:3], "1", *sys.argv[2:]]) if rank == 0 else None
from types import SimpleNamespace

import torch
import torch.distributed as dist

from untrigger.callbacks import EndTogether

dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
trainer = SimpleNamespace(world_size=2, global_rank=rank, local_rank=rank, node_rank=0)
together = EndTogether(poll_seconds=0.1, grace_seconds=30.0)
together.setup(trainer, None, "fit")
if child is None and both_fail:
    together.on_exception(trainer, None, KeyError("x"))
    sys.exit("rank 1 had its end")
if child is None:
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError as error:  # the other one is gone
        together.on_exception(trainer, None, error)
    sys.exit("the reason should have ended this")
together.on_exception(trainer, None, KeyError("x"))
time.sleep(2)
print("the child", "waits" if child.poll() is None else "has ended")
"""


@pytest.mark.parametrize("both_fail", [False, True])
def test_a_rank_that_another_has_started_ends_after_it(both_fail: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, "0", str(tmp_path / "meet"), "x" if both_fail else ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "the child waits\n"), done.stderr
    # The pipe is closed when both have ended.
    end = "rank 1 had its end" if both_fail else "untrigger: error: rank 1 ends because of rank 0: KeyError: 'x'"
    assert done.stderr.splitlines()[-1] == end
    assert "should have ended" not in done.stderr
