"""What a run says and leaves behind when something happens to its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from untrigger.datamodules.generated import write_generated_data

TESTS = str(Path(__file__).parent)
CONFIG = """
seed_everything: 0
trainer:
  accelerator: cpu
  max_epochs: 2
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}
data: {class_path: ImageTextDataModule, init_args: {batch_size: 8, num_workers: 1}}
"""


def run(folder: Path, event: str) -> subprocess.CompletedProcess[str]:
    """A run to whose processes something happens after 13 batches, in a process group of its own."""
    write_generated_data(folder / "data", 80, 1)
    (folder / "config.yaml").write_text(CONFIG)
    diary = {"file": str(folder / "diary"), "after": 13, "event": event}
    options = [
        *("--config", str(folder / "config.yaml"), "--data.train_shards", str(folder / "data" / "train")),
        *("--trainer.default_root_dir", str(folder / "run")),
        f"--trainer.callbacks+={json.dumps({'class_path': 'study.Diary', 'init_args': diary})}",
    ]
    path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "untrigger.cli", "fit", *options],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("event", "status", "reported", "step"),
    [
        ("interrupt", 130, "SIGINT: the run ends after this step or validation, with a checkpoint", 13),
        # Which of the two ways torch finds it in is a matter of time: by its signal, or by its absence.
        ("worker", 2, "untrigger: error: a data worker ", 10),
    ],
)
def test_a_run_ends_with_a_line_and_a_checkpoint(
    event: str, status: int, reported: str, step: int, tmp_path: Path
) -> None:
    done = run(tmp_path, event)
    assert done.returncode == status, done.stderr[-2000:]
    assert [line for line in done.stderr.splitlines() if line.startswith(reported)]
    assert "Traceback" not in done.stderr
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == step
