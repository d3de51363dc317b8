from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from untrigger.commands.bench.grid import Cell
from untrigger.commands.bench.slurm import submit
from untrigger.contracts import UserMistake

SBATCH = """#!/bin/sh
number=$(($(ls "$JOBS" | wc -l) / 2 + 1))
echo "$@" > "$JOBS/$number.options"
cat > "$JOBS/$number.script"
echo "$number;cluster"
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a scheduler keeps what it was given, for the test to run."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(folder))
    # What a job calls is said instead of done.
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    return folder


def cell(name: str, *needs: Cell) -> Cell:
    """A cell that needs others."""
    return Cell("a", "none", 0, name, "poisoned_clip/cifar10.yaml", (name,), {each.name: each for each in needs})


def said(jobs: Path, number: int, task: int = 0) -> list[str]:
    """What a task of a job calls."""
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}
    script = ["sh", str(jobs / f"{number}.script")]
    return subprocess.run(script, env=environment, check=True, capture_output=True, text=True).stdout.split()


def test_each_level_is_an_array_that_waits_for_the_one_before(tmp_path: Path, jobs: Path) -> None:
    poisoned = [cell("one"), cell("two")]
    cleaned = [cell("one--x", poisoned[0]), cell("two--x", poisoned[1])]
    last = cell("one--x--y", cleaned[0], poisoned[0])
    file = tmp_path / "a folder" / "bench.yaml"
    file.parent.mkdir()
    ids = submit([*poisoned, *cleaned, last], file, "--gres=gpu:1 --time=10", ["--out", "o"])
    assert ids == ["1", "2", "3", "4"]
    options = [(jobs / f"{number}.options").read_text().split() for number in ids]
    assert all({"--gres=gpu:1", "--time=10"} <= set(given) for given in options)
    assert [next((o for o in given if o.startswith("--array")), None) for given in options] == [
        "--array=0-1",
        "--array=0-1",
        "--array=0-0",
        None,
    ]
    waits = [[o for o in given if o.startswith("--dependency")] for given in options]
    assert waits == [[], *([f"--dependency=afterany:{number}"] for number in (1, 2, 3))]
    assert [said(jobs, 2, task)[-2:] for task in (0, 1)] == [["--only", "one--x"], ["--only", "two--x"]]
    assert said(jobs, 3)[-1] == "one--x--y"
    assert said(jobs, 1)[3:5] == ["bench", "--config"]
    assert said(jobs, 4)[-2:] == ["--run", "false"]


def test_a_refusal_is_reported_in_one_line(tmp_path: Path, jobs: Path) -> None:
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition\nspecified' >&2\nexit 1\n")
    with pytest.raises(UserMistake, match="sbatch refused: invalid partition specified"):
        submit([cell("one")], tmp_path / "bench.yaml", "", [])


def test_a_machine_without_a_scheduler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserMistake, match="there is no sbatch here"):
        submit([cell("one")], tmp_path / "bench.yaml", "", [])
