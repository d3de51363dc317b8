from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from untrigger.commands import demo as demo_module
from untrigger.commands.demo import demo
from untrigger.contracts import UserMistake


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "TRAIN_PAIRS", 256)
    monkeypatch.setattr(demo_module, "TEST_PAIRS", 60)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    torch.set_num_threads(1)


# The small demo has fewer batches than a log interval.
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_demo_leaves_its_table_and_report_and_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "demo"
    demo(str(out))
    first = (out / "results.csv").read_text()
    (row,) = csv.DictReader(first.splitlines())
    assert (row["attack"], row["defence"]) == ("BadNet", "none")
    assert "<svg" in (out / "report.html").read_text()
    assert "data:image/png" in (out / "report.html").read_text()
    printed = capsys.readouterr().out
    assert f"{100 * float(row['clean_accuracy']):.1f} %" in printed
    demo(str(out))
    (again,) = csv.DictReader((out / "results.csv").read_text().splitlines())
    assert again["clean_accuracy"] == row["clean_accuracy"]


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserMistake, match=r"holds 'thesis\.tex', which is of no demo"):
        demo(str(tmp_path))
    assert (tmp_path / "thesis.tex").exists()
