"""Every detector on every run, as a user asks for it."""

from __future__ import annotations

import csv
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from planted import ENCODER, TARGET, write_colours

from untrigger import cli
from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.contracts import UserMistake
from untrigger.run_folder.manifest import read_plans, write_plans

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")
PLAN = {
    "class_path": "PoisonPlan",
    "init_args": {
        "target": TARGET,
        "count": 40,
        "trigger": {"class_path": "BadNet", "init_args": {"size": 10}},
    },
}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of an epoch: ``badnet``, and ``clean`` of the same data."""
    root = tmp_path_factory.mktemp("runs")
    write_colours(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["untrigger"])
        for name, plan in (("badnet", PLAN), ("clean", None)):
            data = {"train_shards": [str(root / "data" / "train")], "batch_size": 32, "num_workers": 0, "poison": plan}
            config = {
                "trainer": {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(root / name)},
                "model": {"class_path": "PoisonedCLIP", "init_args": {"encoder": ENCODER, "lr": 2e-3}},
                "data": {"class_path": "ImageTextDataModule", "init_args": data},
            }
            (root / f"{name}.yaml").write_text(yaml.safe_dump(config))
            UntriggerCLI(["fit", "--config", str(root / f"{name}.yaml")])
    return root


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """A config of a run of seconds."""
    config: dict[str, Any] = {
        "trainer": {
            "max_epochs": -1,
            "reload_dataloaders_every_n_epochs": 1,
            "accelerator": "cpu",
            "num_sanity_val_steps": 0,
        },
        "model": {
            "class_path": "PairDetectors",
            "init_args": {
                "encoder": ENCODER,
                "isolation_epochs": 1,
                "evidence": [{"class_path": "DetailMargin"}],
                "sampled_pairs": 128,
                "min_word_share": 0.02,
            },
        },
        "data": {"class_path": "ImageTextDataModule", "init_args": {"batch_size": 64, "num_workers": 0}},
    }
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(config))
    return "quick.yaml"


def ask(*words: str) -> int:
    return cli.run(["detect", *words])


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_runs_and_detectors_stand_on_one_table(runs: Path, quick: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(str(runs / "badnet"), str(runs / "clean"), "--detectors", quick) == 0
    rows = table("detect/detection.csv")
    assert {row["run"] for row in rows} == {"badnet"}  # nobody is poisoned in the other
    assert [row["detector"] for row in rows][:3] == ["learnt_first", "low_similarity", "gaussian_mixture"]
    assert len(rows) == 9
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in ("roc_auc", "average_precision"))
    assert "precision_at_64" in rows[0]
    for run in ("badnet", "clean"):
        scores = table(f"detect/{run}/scores.csv")
        assert len({row["key"] for row in scores}) == 640
        assert list(scores[0])[1:] == [row["detector"] for row in rows]
    printed = capsys.readouterr().out
    assert "ROC AUC" in printed
    assert "clean: which pairs are poisoned is not known" in printed


def test_it_is_the_same_again_and_nothing_else_is_overwritten(runs: Path, quick: str) -> None:
    words = (str(runs / "badnet"), "--detectors", quick, "--isolation_epochs", "0")
    ask(*words)
    before = table("detect/detection.csv")
    assert {row["detector"] for row in before}.isdisjoint({"learnt_first"})
    ask(*words)
    assert table("detect/detection.csv") == before
    with pytest.raises(UserMistake, match="is not an empty folder, nor that of the same command"):
        ask(*words[:3])


def test_what_cannot_be_ranked_is_one_line(runs: Path, quick: str, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"holds no last\.ckpt: give the folder of a finished run"):
        ask(str(tmp_path))
    shutil.copytree(runs / "badnet", tmp_path / "other" / "badnet")
    with pytest.raises(UserMistake, match="two of the run folders are called badnet"):
        ask(str(runs / "badnet"), str(tmp_path / "other" / "badnet"))
    (tmp_path / "other" / "badnet" / "config.yaml").unlink()
    with pytest.raises(UserMistake, match="does not say what the model was trained on: give --shards"):
        ask(str(tmp_path / "other" / "badnet"))
    with pytest.raises(UserMistake, match="is a config of PoisonedCLIP; this command takes one of PairDetectors"):
        ask(str(runs / "badnet"), "--out", "wrong", "--detectors", str(runs / "clean.yaml"))
    assert not (Path("wrong") / "badnet" / "last.ckpt").exists(), "it ran first"


def test_a_trigger_of_ones_own_is_known_by_the_module_that_imports_names(
    runs: Path, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("corner_of_my_own.py").write_text("from untrigger.datamodules import BadNet\n\nclass Corner(BadNet): ...\n")
    shutil.copytree(runs / "badnet", tmp_path / "mine")
    manifest = tmp_path / "mine" / "poison.json"
    write_plans([replace(plan, trigger_kind="corner_of_my_own.Corner") for plan in read_plans(manifest)], manifest)
    words = ("mine", "--detectors", quick, "--isolation_epochs", "0")
    with pytest.raises(UserMistake, match=r"corner_of_my_own\.Corner.* name it in the option imports"):
        ask(*words)
    assert ask(*words, "--imports", "corner_of_my_own") == 0
    assert {row["run"] for row in table("detect/detection.csv")} == {"mine"}
    with pytest.raises(UserMistake, match=r"imports: .*no_such_module"):
        ask(*words, "--imports", "no_such_module")


def test_it_is_run_with_one_task(runs: Path, quick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistake, match=r"2 tasks of untrigger detect, .*: run it with one task \(srun --ntasks=1\)"):
        ask(str(runs / "badnet"), "--detectors", quick)
    assert not Path("detect").exists()
