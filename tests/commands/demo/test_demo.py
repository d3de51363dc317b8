from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
import yaml

from untrigger.commands.demo import story
from untrigger.commands.demo.command import demo
from untrigger.commands.demo.time_left import SHARES, minutes_left
from untrigger.contracts import UserMistake


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "TRAIN_PAIRS", 256)
    monkeypatch.setattr(story, "CLEAN_PAIRS", 128)
    monkeypatch.setattr(story, "SHARD_SIZE", 64)
    monkeypatch.setattr(story, "TEST_PAIRS", 60)
    overrides = story._overrides
    # UBT takes as many steps on few pairs as on many.
    fewer = ["--model.probe.steps", "5", "--model.repair.epochs", "2", "--model.repair.steps", "5"]
    monkeypatch.setattr(
        story,
        "_overrides",
        lambda stage, folder: [*overrides(stage, folder), *(fewer if stage == "ubt" else [])],
    )
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    torch.set_num_threads(1)


# The small demo has fewer batches than a log interval.
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_demo_leaves_its_table_and_report_and_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "demo"
    demo(str(out))
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [(row["attack"], row["defence"]) for row in rows] == [
        ("BadNet", "none"),
        ("BadNet", "CleanCLIP"),
        ("BadNet", "UBT"),
    ]
    assert [int(row["samples_seen"]) for row in rows[:2]] == [5 * 256, 4 * 128]
    report = (out / "report.html").read_text()
    assert "<svg" in report
    assert "data:image/png" in report
    printed = capsys.readouterr().out
    assert "before: poisoned" in printed
    assert "after CleanCLIP" in printed
    for row in rows:
        assert f"{100 * float(row['clean_accuracy']):.1f} %" in printed
    assert [f"Stage {number} of 3, about " in printed for number in (1, 2, 3)] == [True] * 3
    assert "recovered" in printed
    config = yaml.safe_load((out / "cleanclip" / "config.yaml").read_text())
    assert config["progress_bar"]["label"] == "2/3"
    demo(str(out))
    again = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["clean_accuracy"] for row in again] == [row["clean_accuracy"] for row in rows]


def test_clean_pairs_are_none_of_those_that_the_poisoned_model_saw_and_unlearning_has_no_others(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    poisoned, cleaned, unlearnt = (story._overrides(stage, out)[1] for stage in story.STAGES)
    assert poisoned == unlearnt == f"{out}/shapes/train/{{00000..00003}}.tar"
    assert cleaned == f"{out}/shapes/train/{{00004..00005}}.tar"


def test_what_is_left_is_judged_by_what_is_done() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == {"data", *story.STAGES}
    # A fiftieth took ten seconds: the rest takes eight minutes and ten seconds.
    assert minutes_left(10, ["data"]) == 9
    assert minutes_left(114, ["data", "poisoned_clip"]) == 4
    assert minutes_left(500, SHARES) == 1


def test_recovered_is_a_share_of_the_accuracy_before() -> None:
    row = {"non_target_triggered_accuracy": "0.45", "clean_accuracy": "0.2"}
    assert story._recovered(row, 0.9) == "50.0 %"
    assert story._recovered({}, 0.9) == ""


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserMistake, match=r"holds 'thesis\.tex', which is of no demo"):
        demo(str(tmp_path))
    assert (tmp_path / "thesis.tex").exists()
