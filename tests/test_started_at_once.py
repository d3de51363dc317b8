"""Two commands that are started on one folder at the same moment, in processes of their own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from untrigger import cli
from untrigger.command_line import lightning_cli
from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import write_generated_data

WAITED = "another run is going on in"
"""On a machine that is so slow that the first one takes longer than the second one's patience."""
FIT = "fit --config fit.yaml"
CONFIG = """
trainer: {accelerator: cpu, max_epochs: 2, limit_val_batches: 0, log_every_n_steps: 1, enable_progress_bar: false}
model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}
data: {class_path: ImageTextDataModule, init_args: {train_shards: data/train, batch_size: 8, num_workers: 0}}
"""
# All is imported before, and the two wait for each other at each command: nothing keeps them apart.
PROCESS = """
import os, sys, time
import untrigger.command_line.lightning_cli
from untrigger import cli
for number, words in enumerate(sys.argv[1:]):
    open(f"ready-{number}-{os.getpid()}", "w").close()
    while not os.path.exists(f"go-{number}"):
        time.sleep(0.001)
    os.environ.pop("UNTRIGGER_RUN", None)
    try:
        code = cli.run(words.split())
    except Exception as error:
        code = f"{type(error).__name__}: {error}"
    with open(f"end-{number}-{os.getpid()}", "w") as file:
        file.write(str(code))
"""


def started_at_once(folder: Path, *commands: str) -> list[list[str]]:
    """How each of these commands ended in two processes that started it together."""
    start = [sys.executable, "-W", "ignore", "-c", PROCESS, *commands]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(start, cwd=folder, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    for number in range(len(commands)):
        while len(list(folder.glob(f"ready-{number}-*"))) < 2:
            assert all(process.poll() is None for process in both)
            time.sleep(0.01)
        (folder / f"go-{number}").touch()
    assert [process.wait(600) for process in both] == [0, 0]
    return [sorted(path.read_text() for path in folder.glob(f"end-{number}-*")) for number in range(len(commands))]


def test_one_of_two_gets_the_folder_and_the_other_is_reported(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 40, 1)
    (tmp_path / "fit.yaml").write_text(CONFIG)
    poison = "poison --shards data/train --out baked --image_size 32 --plan PoisonPlan --plan.count 4 --plan.trigger "
    new, resumed, unnamed, baked = started_at_once(
        tmp_path,
        f"{FIT} --trainer.default_root_dir run",
        f"{FIT} --trainer.default_root_dir run --ckpt_path last --trainer.max_epochs 4",
        FIT,
        f"{poison} BadNet --plan.target square",
    )
    assert new[0] == "0"
    assert "run already holds a run: continue it with" in new[1] or WAITED in new[1]
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["epoch"] == 3
    assert resumed[0] == "0"
    assert resumed[1] == "0" or WAITED in resumed[1]  # the second one goes on where the first has ended
    logs = sorted((tmp_path / "run").rglob("metrics.csv"))
    steps = [[int(row["step"]) for row in csv.DictReader(log.read_text().splitlines())] for log in logs]
    assert steps == [list(range(10)), list(range(10, 20))]
    assert unnamed == ["0", "0"]
    first, second = sorted((tmp_path / "runs").iterdir())
    assert (first / "last.ckpt").exists()
    assert (second / "last.ckpt").exists()
    assert baked[0] == "0"
    assert "baked is not an empty folder" in baked[1] or WAITED in baked[1]


def test_what_ends_before_it_has_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    (tmp_path / "fit.yaml").write_text(CONFIG)
    for folder in ([], ["--trainer.default_root_dir", "runs/mine"]):
        monkeypatch.delenv("UNTRIGGER_RUN", raising=False)
        with pytest.raises(UserMistake, match="batch_size is 0"):
            cli.run([*FIT.split(), *folder, "--data.batch_size", "0"])
        assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("job", ["SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"])
def test_each_command_of_a_job_has_a_folder_which_it_has_again_when_the_job_is_requeued(
    job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(job, "4711")
    monkeypatch.delenv("UNTRIGGER_RUN", raising=False)
    folders = []
    for seed in ("1", "2", "1"):
        monkeypatch.setattr(sys, "argv", ["untrigger", "fit", "--seed_everything", seed])
        with ExitStack() as until_the_end:
            folders.append(lightning_cli._new_run_folder("fit", until_the_end))
    assert folders[0] == folders[2] != folders[1]
    assert all(folder.startswith("runs/fit-4711-") for folder in folders)
