"""Does what a run has left in its folder stay, and does a run that never began leave the folder free?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from fit_arguments import fit_arguments

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import write_generated_data
from untrigger.run_folder.results import read_results


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 48, 12)
    return folder


@pytest.fixture
def base(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A complete set of arguments; the run folder is ``tmp_path/run``."""
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return [*fit_arguments(tmp_path, data), "--trainer.max_epochs", "1"]


def test_what_a_run_has_left_is_not_replaced_by_what_is_of_other_weights(
    base: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    UntriggerCLI(["fit", *base, "--ckpt_path", "last"])  # a mistyped folder, or the first start of a job
    assert "run has no checkpoint yet: the run starts from its beginning" in caplog.text
    UntriggerCLI(["fit", *base, "--trainer.default_root_dir", str(other)])
    foreign, own = str(other / "last.ckpt"), str(run / "last.ckpt")
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(UserMistake, match=r"run already holds a run, and .*other/last.ckpt is not of it: give another"):
        UntriggerCLI(["fit", *base, "--ckpt_path", foreign])
    for command in ("validate", "test", "predict"):
        for weights in ([], ["--ckpt_path", foreign]):
            with pytest.raises(UserMistake, match=r"holds a run, whose figures .*: give .*run/last.ckpt, or"):
                UntriggerCLI([command, *base, *weights])
    for command, limit in (("validate", "limit_val_batches"), ("test", "limit_test_batches")):
        with pytest.raises(UserMistake, match=rf"trainer\.{limit} is 1, and .*run holds a run, whose figures of every"):
            UntriggerCLI([command, *base, "--ckpt_path", own, f"--trainer.{limit}", "1"])
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    UntriggerCLI(["validate", *base, "--ckpt_path", own])
    UntriggerCLI(["validate", *base, "--ckpt_path", foreign, "--trainer.fast_dev_run", "true"])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_figures_of_the_end_are_not_replaced_by_those_of_an_earlier_checkpoint(base: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    UntriggerCLI(["fit", *base, "--trainer.max_epochs", "2", "--checkpoint.save_top_k", "-1"])
    before = (run / "results.csv").read_bytes()
    early, same = sorted(run.glob("epoch=*.ckpt"))
    for command in ("validate", "test", "predict"):
        with pytest.raises(UserMistake, match=rf"{early.name} is not the checkpoint that the figures in .*run are of"):
            UntriggerCLI([command, *base, "--ckpt_path", str(early)])
    UntriggerCLI(["validate", *base, "--ckpt_path", str(early), "--trainer.default_root_dir", str(tmp_path / "new")])
    assert (run / "results.csv").read_bytes() == before
    UntriggerCLI(["validate", *base, "--ckpt_path", str(same)])
    assert [row["samples_seen"] for row in read_results(run)] == ["96"]
    (run / "results.csv").unlink()
    UntriggerCLI(["validate", *base, "--ckpt_path", str(early)])
    assert [row["samples_seen"] for row in read_results(run)] == ["48"]
    UntriggerCLI(["validate", *base, "--ckpt_path", str(run / "last.ckpt")])
    assert [row["samples_seen"] for row in read_results(run)] == ["96"]


@pytest.mark.parametrize("name", ["best", "hpc"])
@pytest.mark.parametrize("command", ["validate", "fit"])
def test_a_checkpoint_that_lightning_does_not_find_is_not_called_damaged(
    command: str, name: str, base: list[str]
) -> None:
    with pytest.raises(UserMistake, match=rf'{command}\(ckpt_path="{name}"\)` is set but') as mistake:
        UntriggerCLI([command, *base, "--ckpt_path", name])
    assert "damaged" not in str(mistake.value)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_without_a_checkpoint_the_last_one_is_not_measured(command: str, base: list[str]) -> None:
    with pytest.raises(UserMistake, match=rf"run has no last\.ckpt: there is nothing to {command}"):
        UntriggerCLI([command, *base, "--ckpt_path", "last"])


def test_a_run_that_was_refused_before_it_began_does_not_hold_its_folder(base: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="limit_train_batches"):
        UntriggerCLI(["fit", *base, "--trainer.limit_train_batches", "0.01"])
    UntriggerCLI(["fit", *base])
    assert (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.parametrize("count", ["", "x", "0", "00"])
def test_a_job_that_was_not_started_again_is_no_requeued_one(
    base: list[str], count: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / "run" / name).write_text("")
    with pytest.raises(UserMistake, match="already holds a run: continue it with --ckpt_path last"):
        UntriggerCLI(["fit", *base])
