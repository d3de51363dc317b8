"""Is a run of a command in a number format that this processor has, unless the user chose another?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from untrigger.command_line import number_formats
from untrigger.commands.bench.grid import Cell
from untrigger.commands.bench.session import precision_of, slow_precisions
from untrigger.commands.trainer_runs import run_trainer
from untrigger.datamodules.generated import write_generated_data
from untrigger.files.packaged_configs import packaged_config


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU computes in half precision."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("own", "speedup", "precision"), [(False, 0.2, "32-true"), (False, 1.9, "bf16-mixed"), (True, 0.2, "bf16-mixed")]
)
def test_a_run_of_the_packages_config_avoids_an_emulated_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool, speedup: float, precision: str
) -> None:
    monkeypatch.setattr(number_formats, "bfloat16_speedup", lambda: speedup)
    write_generated_data(tmp_path / "shapes", 64, 8, seed=0)
    config = "demo/poisoned_clip.yaml"
    overrides = ["--data.train_shards", str(tmp_path / "shapes" / "train"), "--trainer.fast_dev_run", "true"]
    overrides += ["--data.zero_shot", "null", "--data.batch_size", "32", "--data.num_workers", "0"]
    overrides += ["--data.poison", "null", "--model.encoder", "small:nano-32"]
    ran = run_trainer("fit", packaged_config(config) if own else config, overrides)
    assert ran.trainer.precision == precision


def cell(*arguments: str, config: str = "par/cifar10.yaml") -> Cell:
    return Cell("patch", "PAR", 1, "patch--PAR", config, arguments, {})


def test_a_bench_says_once_that_its_runs_are_slow_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(number_formats, "bfloat16_speedup", lambda: 0.2)
    (line,) = slow_precisions([cell(), cell("--seed_everything", "2")])
    assert line.endswith("--every.trainer '{precision: 32-true}' is faster here")
    full = cell("--trainer.precision", "32-true")
    (tmp_path / "mine.yaml").write_text("trainer:\n")
    own = cell(config=str(tmp_path / "mine.yaml"))
    assert [precision_of(each) for each in (cell(), full, own)] == ["bf16-mixed", "32-true", "32-true"]
    assert slow_precisions([full, own]) == set()
    monkeypatch.setattr(number_formats, "bfloat16_speedup", lambda: 1.9)
    assert slow_precisions([cell()]) == set()
