"""The command with two processes, as Lightning starts them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from untrigger.datamodules.generated import write_generated_data

COMMON = """
seed_everything: 0
trainer: {accelerator: cpu, max_epochs: 1, num_sanity_val_steps: 0, log_every_n_steps: 1, enable_progress_bar: false}
model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}
data:
  class_path: ImageTextDataModule
  init_args:
    batch_size: 8
    eval_batch_size: 18  # one batch of 18 and two of 19 pictures
    num_workers: 1
    poison:
      class_path: PoisonPlan
      init_args: {target: star, count: 10, trigger: {class_path: Blended}}
"""


def untrigger(*arguments: str) -> None:
    command = [sys.executable, "-m", "untrigger.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def row(folder: Path) -> dict[str, str]:
    with (folder / "results.csv").open(newline="") as handle:
        (only,) = csv.DictReader(handle)
    return only


def test_two_ranks_share_an_epoch_and_measure_every_picture_once(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 72, 37)
    (tmp_path / "config.yaml").write_text(COMMON)
    common = ["--config", str(tmp_path / "config.yaml"), "--data.zero_shot", str(tmp_path / "data")]
    common += ["--data.train_shards", str(tmp_path / "data" / "train")]
    run = tmp_path / "run"
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.default_root_dir", str(run)]
    untrigger("fit", *common, *two)
    trained = row(run)
    # 72 pairs are four global batches of 16.
    assert trained["samples_seen"] == "64"
    alone = ["--trainer.devices", "1", "--trainer.default_root_dir", str(tmp_path / "alone")]
    untrigger("validate", *common, *alone, "--ckpt_path", str(run / "last.ckpt"))
    measured = row(tmp_path / "alone")
    rates = ("clean_accuracy", "attack_success_rate", "clean_target_rate", "triggered_accuracy")
    assert {name: trained[name] for name in rates} == {name: measured[name] for name in rates}
    untrigger("predict", *common, *two[:4], *alone[2:], "--ckpt_path", str(run / "last.ckpt"))
    keys = [
        line.split(",")[0]
        for path in (tmp_path / "alone").glob("similarities-?.csv")
        for line in path.read_text().splitlines()
    ]
    assert len(keys) == 72 + 2
    assert len(set(keys)) == 72 + 1
