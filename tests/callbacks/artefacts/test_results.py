from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from torch import Tensor

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, Rate, ResultsWriter, ZeroShotMeasure
from untrigger.contracts import ClassLogits, UserMistake, ZeroShotData
from untrigger.files.tables import plain_cell
from untrigger.run_folder.results import add_results

HEADER = (
    "dataset,attack,defence,seed,clean_accuracy,attack_success_rate,clean_target_rate,triggered_accuracy,"
    "seconds,samples_seen"
)


def measures() -> list[Callback]:
    return [CleanAccuracy(), AttackSuccessRate(), ResultsWriter()]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 50 s whenever it is read."""
    monkeypatch.setattr("untrigger.callbacks.artefacts.results.perf_counter", itertools.count(0, 50).__next__)


@pytest.mark.usefixtures("slow_clock")
def test_fit_leaves_one_row(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    run.trainer(*measures(), max_epochs=3).fit(run.Module(), datamodule=run.Data())
    assert (run.folder / "results.csv").read_text() == (
        f"{HEADER},non_target_triggered_accuracy\nwritten,BadNet,none,7,0.571429,0.6,0.4,0.285714,50.0,24,0.2\n"
    )
    assert [path.name for path in run.folder.iterdir()] == ["results.csv"]


def test_each_attack_has_its_row(run: Any) -> None:
    run.trainer(*measures()).fit(run.Module(), datamodule=run.Data(run.badnet | run.second))
    assert [(row["attack"], row["attack_success_rate"], row["clean_accuracy"]) for row in rows(run.folder)] == [
        ("BadNet", "0.6", "0.571429"),
        ("BadNet-2", "0.75", "0.571429"),
    ]


def test_no_attack_leaves_a_row_with_empty_cells(run: Any) -> None:
    run.trainer(*measures()).validate(run.Module(), datamodule=run.Data({}))
    assert (run.folder / "results.csv").read_text() == f"{HEADER}\nwritten,none,none,0,0.571429,,,,0.0,0\n"


@pytest.mark.parametrize("stage", ["val", "test"])
def test_figures_of_a_part_are_told(stage: str, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    option = f"limit_{stage}_batches"
    measure = {"val": "validate", "test": "test"}[stage]
    with caplog.at_level("INFO"):
        getattr(run.trainer(*measures()), measure)(run.Module(), datamodule=run.Data())
        assert "of a part" not in caplog.text
        getattr(run.trainer(*measures(), **{option: 2}), measure)(run.Module(), datamodule=run.Data())
    assert f"of a part of the test set: 2 of 3 batches, by trainer.{option}" in caplog.text


def test_figures_of_a_part_are_told_after_a_fit_too(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run.trainer(*measures(), limit_val_batches=1).fit(run.Module(), datamodule=run.Data())
    assert "of a part of the test set: 1 of 3 batches, by trainer.limit_val_batches" in caplog.text


@pytest.mark.parametrize("command", ["validate", "test"])
def test_later_evaluation_replaces_the_row_of_the_same_run_only(
    run: Any, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.folder.mkdir()
    mine = dict.fromkeys(HEADER.split(","), "0.1") | {"dataset": "written", "attack": "BadNet", "defence": "none"}
    mine |= {"seed": "0"}
    add_results(run.folder, [mine | {"seed": "1"}, mine, mine | {"defence": "CleanCLIP"}])
    getattr(run.trainer(*measures()), command)(run.Module(), datamodule=run.Data())
    found = [(row["defence"], row["seed"], row["clean_accuracy"]) for row in rows(run.folder)]
    assert found == [("none", "1", "0.1"), ("none", "0", "0.571429"), ("CleanCLIP", "0", "0.1")]
    # Rows of before there was such a column have nothing in it.
    assert [row["non_target_triggered_accuracy"] for row in rows(run.folder)] == ["", "0.2", ""]


@pytest.mark.usefixtures("slow_clock")
def test_resumed_run_counts_its_earlier_sessions(run: Any) -> None:
    first = run.trainer(*measures())
    first.fit(run.Module(), datamodule=run.Data())
    checkpoint = run.folder / "last.ckpt"
    first.save_checkpoint(checkpoint)  # 50 s and 8 pairs
    run.trainer(*measures(), max_epochs=3).fit(
        run.Module(), datamodule=run.Data(), ckpt_path=checkpoint, weights_only=True
    )
    assert [(row["seconds"], row["samples_seen"]) for row in rows(run.folder)] == [("100.0", "24")]


def test_a_clock_that_is_set_meanwhile_changes_no_duration(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([1e9, 1e9 + 7200, 1e9 - 7200])
    monkeypatch.setattr("time.time", lambda: next(jumps))
    run.trainer(*measures(), max_epochs=2).fit(run.Module(), datamodule=run.Data())
    assert [0 <= float(row["seconds"]) < 3600 for row in rows(run.folder)] == [True]


def test_evaluation_of_a_checkpoint_shows_what_that_checkpoint_took(run: Any) -> None:
    first = run.trainer(*measures())
    first.fit(run.Module(), datamodule=run.Data())
    first.save_checkpoint(run.folder / "last.ckpt")
    run.trainer(*measures()).test(run.Module(), datamodule=run.Data(), ckpt_path=run.folder / "last.ckpt")
    assert [row["samples_seen"] for row in rows(run.folder)] == ["8"]


def test_figures_of_an_earlier_model_are_not_given_for_the_last_one(run: Any) -> None:
    trainer, module, data = run.trainer(*measures(), max_epochs=3, check_val_every_n_epoch=2), run.Module(), run.Data()
    trainer.fit(module, datamodule=data)
    assert not (run.folder / "results.csv").exists()
    trainer.validate(module, datamodule=data, verbose=False)
    assert [(row["clean_accuracy"], row["samples_seen"]) for row in rows(run.folder)] == [("0.571429", "24")]


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"fast_dev_run": True}])
def test_nothing_measured_leaves_no_file(run: Any, options: dict[str, Any]) -> None:
    run.trainer(*measures(), **options).fit(run.Module(), datamodule=run.Data())
    assert not (run.folder / "results.csv").exists()


@pytest.mark.parametrize("name", ["=HYPERLINK(0)", "+1", "-1", "@SUM(A1)", "\tx", 'a,"b"\nc'])
def test_names_are_no_formulas(run: Any, name: str) -> None:
    for _ in range(2):  # the second time, the row is found and replaced
        run.trainer(*measures()).validate(run.Module(), datamodule=run.Data(name=name))
    (row,) = rows(run.folder)
    assert plain_cell(row["dataset"]) == name
    assert row["dataset"].startswith("'")


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", f"{HEADER}\n1,2\n", f"{HEADER},mine,mine\n", f"x,{HEADER}\n", f"{HEADER},\n", "\xff\xfe"]
)
def test_file_that_is_not_a_results_file_stops_the_run_before_it_starts(run: Any, text: str) -> None:
    run.folder.mkdir()
    (run.folder / "results.csv").write_text(text, encoding="latin-1")
    trainer = run.trainer(*measures())
    with pytest.raises(UserMistake, match=r"results\.csv"):
        trainer.fit(run.Module(), datamodule=run.Data())
    assert trainer.global_step == 0
    assert (run.folder / "results.csv").read_text(encoding="latin-1") == text


class SecondGuess(ZeroShotMeasure):
    """A metric of a user's own."""

    def rates(self, data: ZeroShotData) -> list[str]:
        return ["second_guess"]

    def count(self, label: Tensor, outputs: ClassLogits, rates: dict[str, Rate]) -> None:
        rates["second_guess"].update(outputs["logits"].topk(2).indices[:, 1] == label)


def test_a_metric_of_one_s_own_is_a_column_behind_the_others(run: Any) -> None:
    run.trainer(*measures(), SecondGuess()).validate(run.Module(), datamodule=run.Data(run.badnet | run.second))
    found = rows(run.folder)
    assert list(found[0])[:10] == HEADER.split(",")
    assert len({row["second_guess"] for row in found}) == 1
    assert 0 <= float(found[0]["second_guess"]) <= 1
