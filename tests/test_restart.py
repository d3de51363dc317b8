"""Runs that are killed in the middle of an epoch, in processes of their own, and what becomes of them."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.datamodules.generated import write_generated_data

TESTS = str(Path(__file__).parent)
COMMON = """
seed_everything: 0
trainer:
  accelerator: cpu
  num_sanity_val_steps: 0
  limit_val_batches: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""
CLIP = """
  max_epochs: 2
model: {class_path: study.Noisy, init_args: {encoder: "small:nano-32", lr: 1.0e-2, warmup_steps: 4}}
data: {class_path: ImageTextDataModule, init_args: {batch_size: 8, num_workers: 1}}
checkpoint: {every_n_train_steps: 3}
"""
UBT = """
  max_epochs: -1
  reload_dataloaders_every_n_epochs: 1
model:
  class_path: UBT
  init_args: {encoder: "small:nano-32", sampled_pairs: 40, min_word_share: 0.05, lr: 1.0e-3, rounds: 1,
    evidence: [{class_path: SimilarityGain}, {class_path: DetailMargin}], overfit: {weak_share: 0.4, epochs: 2},
    probe: {epochs: 2, steps: 3, significance: 1.0, min_moved: 0.0, min_variety: 0.0, min_fragility: -1.0},
    repair: {epochs: 2, steps: 3, batch_size: 4}}
data: {class_path: ImageTextDataModule, init_args: {batch_size: 8, eval_batch_size: 16, num_workers: 1}}
checkpoint: {minutes: 0}
"""
BATCHES = {"clip": 18, "ubt": 31}


class Killed(NamedTuple):
    """A run that was not interrupted, and the same one killed, each with its diary beside it."""

    arguments: list[str]
    whole: Path
    folder: Path


def diary(folder: Path, session: str = "first") -> list[Any]:
    return [json.loads(line) for line in folder.with_name(f"{folder.name}-{session}.0").read_text().splitlines()]


def options(arguments: list[str], folder: Path, session: str = "first", kill_after: int = 0) -> list[str]:
    file = folder.with_name(f"{folder.name}-{session}")
    callback = {"class_path": "study.Diary", "init_args": {"file": str(file), "after": kill_after}}
    return [
        "fit",
        *arguments,
        "--trainer.default_root_dir",
        str(folder),
        f"--trainer.callbacks+={json.dumps(callback)}",
    ]


def fit(arguments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["untrigger"])
        patch.syspath_prepend(TESTS)
        UntriggerCLI(arguments)


def process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The same, in a process of its own."""
    command = [sys.executable, "-m", "untrigger.cli", *arguments]
    path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.fixture(scope="module", params=["clip", "ubt"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    write_generated_data(folder / "data", 75, 1)
    (folder / "config.yaml").write_text(COMMON + {"clip": CLIP, "ubt": UBT}[request.param])
    arguments = ["--config", str(folder / "config.yaml"), "--data.train_shards", str(folder / "data" / "train")]
    fit(options(arguments, folder / "whole"))
    assert len(diary(folder / "whole")) == BATCHES[request.param]
    kill_after = random.SystemRandom().randrange(7, BATCHES[request.param])
    print(f"{request.param}: killed after batch {kill_after}")
    done = process(options(arguments, folder / "killed", kill_after=kill_after))
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    return Killed(arguments, folder / "whole", folder / "killed")


def continued(killed: Killed, name: str, *arguments: str) -> Path:
    """A copy of the killed run, continued."""
    run = killed.folder.with_name(name)
    shutil.copytree(killed.folder, run)
    fit(options([*killed.arguments, *arguments, "--ckpt_path", str(run / "last.ckpt")], run, "second"))
    return run


def assert_same_end(run: Path, whole: Path) -> None:
    one, other = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (run, whole)]
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(
        one["optimizer_states"][0]["state"], other["optimizer_states"][0]["state"], rtol=0, atol=0
    )
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert one["global_step"] == other["global_step"]


def logged(folder: Path) -> dict[str, str]:
    """The loss by step; a later session's value counts."""
    losses: dict[str, str] = {}
    for path in (folder / "metrics.csv", folder / "resumed-1" / "metrics.csv"):
        if path.exists():
            with path.open(newline="") as handle:
                losses |= {row["step"]: row["train/loss"] for row in csv.DictReader(handle) if row.get("train/loss")}
    return losses


def test_a_killed_run_sees_what_was_due_and_ends_with_the_same_weights(killed: Killed) -> None:
    run = continued(killed, "exact")
    whole, first, second = diary(killed.whole), diary(killed.folder), diary(run, "second")
    assert first == whole[: len(first)]
    start = whole.index(second[0])
    assert 0 < start <= len(first)
    seen = [tuple(batch) for batch in [*first[:start], *second]]
    assert [list(batch) for batch in seen] == whole
    for epoch in {batch[0] for batch in whole}:
        keys = [Counter(key for at, _, batch in batches if at == epoch for key in batch) for batches in (seen, whole)]
        assert keys[0] == keys[1]
    assert_same_end(run, killed.whole)
    assert logged(run) == logged(killed.whole)


def test_a_checkpoint_that_is_cut_off_gives_way_to_the_one_before(killed: Killed) -> None:
    last = killed.folder / "last.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    try:
        with pytest.warns(UserWarning, match=r"last.ckpt is cut off: the run resumes from .*previous\.ckpt"):
            run = continued(killed, "cut")
    finally:
        last.write_bytes(content)
    assert_same_end(run, killed.whole)


@pytest.mark.parametrize("killed", ["clip"], indirect=True)
def test_in_another_division_the_epoch_resumes_at_its_samples(killed: Killed) -> None:
    state = torch.load(killed.folder / "last.ckpt", weights_only=True)
    loader = state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    start, in_the_middle = loader["batches"] * 8 // 5, loader["batches"] < loader["steps"]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run = continued(killed, "other", "--data.batch_size", "5", "--data.num_workers", "0")
    reported = [str(warning.message) for warning in warned if "was divided otherwise" in str(warning.message)]
    assert all(
        "batch_size 8 -> 5" in line and f"it resumes after {loader['batches'] * 8} samples" in line for line in reported
    )
    assert bool(reported) == in_the_middle
    batches = [(epoch, batch) for epoch in range(2) for batch in range(15)]
    first = (loader["epoch"], start) if in_the_middle else (loader["epoch"] + 1, 0)
    assert [tuple(batch[:2]) for batch in diary(run, "second")] == batches[batches.index(first) :]
    end = torch.load(run / "last.ckpt", weights_only=True)
    assert end["global_step"] == state["global_step"] + len(batches[batches.index(first) :])
    assert end["epoch"] == 1


@pytest.mark.parametrize("killed", ["clip"], indirect=True)
def test_with_another_number_of_ranks_the_epoch_resumes_at_its_samples(killed: Killed) -> None:
    state = torch.load(killed.folder / "last.ckpt", weights_only=True)
    loader = state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    in_the_middle = loader["batches"] < loader["steps"]
    run = killed.folder.with_name("ranks")
    shutil.copytree(killed.folder, run)
    ranks = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--ckpt_path", str(run / "last.ckpt")]
    done = process(options([*killed.arguments, *ranks], run, "second"))
    assert done.returncode == 0, done.stderr[-2000:]
    reported = f"ranks 1 -> 2): it resumes after {loader['batches'] * 8} samples"
    assert (reported in " ".join(done.stderr.split())) == in_the_middle
    # 75 pairs are 4 batches of two ranks.
    batches = [(epoch, batch) for epoch in range(2) for batch in range(4)]
    first = (loader["epoch"], loader["batches"] * 8 // 16) if in_the_middle else (loader["epoch"] + 1, 0)
    due = batches[batches.index(first) :] if first in batches else []
    assert [tuple(batch[:2]) for batch in diary(run, "second")] == due
    seen = [json.loads(line) for line in (run.parent / "ranks-second.1").read_text().splitlines()]
    assert [tuple(batch[:2]) for batch in seen] == due
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == state["global_step"] + len(due)


def test_other_shards_than_those_of_the_checkpoint_are_reported(killed: Killed, tmp_path: Path) -> None:
    write_generated_data(tmp_path, 75, 1, seed=1)
    with pytest.warns(UserWarning, match=r"other training pairs .*: other content in '00000\.tar'"):
        continued(killed, "replaced", "--data.train_shards", str(tmp_path / "train"))
