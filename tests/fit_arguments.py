"""A complete command line of a small run."""

from __future__ import annotations

from pathlib import Path

CONFIG = """
seed_everything: 0
trainer:
  max_epochs: 2
  accelerator: cpu
  num_sanity_val_steps: 0
  log_every_n_steps: 2
  enable_progress_bar: false
  enable_model_summary: false
model:
  class_path: PoisonedCLIP
  init_args: {encoder: "small:nano-32", lr: 1.0e-3, warmup_steps: 2}
data:
  class_path: ImageTextDataModule
  init_args:
    batch_size: 16
    num_workers: 0
    poison:
      class_path: PoisonPlan
      init_args:
        target: star
        rate: 0.1
        trigger: {class_path: BadNet, init_args: {size: 5}}
"""


def fit_arguments(folder: Path, data: Path) -> list[str]:
    """Arguments of a fit that measures and is attacked, on generated data; the run folder is ``folder/run``."""
    (folder / "config.yaml").write_text(CONFIG)
    return [
        *("--config", str(folder / "config.yaml"), "--trainer.default_root_dir", str(folder / "run")),
        *("--data.train_shards", str(data / "train"), "--data.zero_shot", str(data)),
    ]
