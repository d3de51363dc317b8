"""One answer from a model, with and without the data that it was trained on."""

from __future__ import annotations

import csv
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from untrigger import cli
from untrigger.commands.check import examination, page
from untrigger.commands.check.command import check
from untrigger.contracts import UserMistake
from untrigger.datamodules.excluded import excluded_keys
from untrigger.datamodules.generated import write_generated_data

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_with_data_suspects_are_shown_and_the_exit_code_is_3(
    model: str, scraped: str, ubt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(model, scraped, "answer", ubt=ubt(True)) == 3
    answer = json.loads(Path("answer/check.json").read_text())
    assert (answer["verdict"], answer["exit_code"], answer["encoder"]) == ("suspicious", 3, "small:nano-32")
    assert not answer["calibrated"]
    found = answer["pairs"]
    assert found["pairs"] == 64
    assert found["poisoned"] > 0
    assert found["words"] == [each["word"] for each in found["verdicts"] if each["found"]] != []
    record = json.loads(Path("answer/ubt/ubt.json").read_text())
    assert [record[name] for name in ("alarm", "poisoned", "suspicious", "compromised", "verdicts")] == [
        True,
        *(found[name] for name in ("poisoned", "suspicious", "words", "verdicts")),
    ]
    assert answer["inversion"] is None
    assert set(found["density"]) == {"k_distance", "slof", "dao"}
    assert all(0 <= percentile <= 1 for percentile in found["density"].values())
    with Path("answer/suspects.csv").open(newline="") as handle:
        decisions = [row["decision"] for row in csv.DictReader(handle)]
    assert decisions.count("poisoned") == found["poisoned"]
    assert decisions.count("suspicious") == found["suspicious"]
    assert len(excluded_keys("answer/suspects.csv")) == found["left_out"] == len(decisions)
    page = Tags(Path("answer/check.html").read_text())
    assert [source[:10] for source in page.sources] == ["data:image"]
    printed = capsys.readouterr().out
    assert f"{found['poisoned']} of 64 pairs look poisoned" in printed
    assert f"without the {len(decisions)} of 64 pairs" in printed.replace("\n", " ")
    assert f"untrigger clean {model}" in printed.replace("\n", "")


def test_a_model_with_nothing_suspicious_gets_0_and_stays_as_it_was(model: str, scraped: str, ubt: Any) -> None:
    before = Path(model).read_bytes()
    assert check(model, scraped, "answer", ubt=ubt(False)) == 0
    answer = json.loads(Path("answer/check.json").read_text())
    assert (answer["verdict"], answer["pairs"]["poisoned"], answer["pairs"]["words"]) == ("clean", 0, [])
    assert answer["pairs"]["density"] == {}
    assert not Path("answer/suspects.png").exists()
    assert "Nothing suspicious" in Path("answer/check.html").read_text()
    assert Path(model).read_bytes() == before


def test_without_data_the_trigger_is_inverted_on_pictures_that_come_along(model: str) -> None:
    code = check(model, out="answer")
    answer = json.loads(Path("answer/check.json").read_text())
    assert answer["pairs"] is None
    assert 0 <= answer["inversion"]["p_l1_norm"] <= 1
    threshold = answer["calibration"]["threshold"]
    assert code == (3 if answer["inversion"]["found"] and answer["inversion"]["p_l1_norm"] < threshold else 0)
    assert json.loads(Path("answer/decree/decree.json").read_text())["steps"] == 3


def test_with_data_the_trigger_can_be_inverted_too_and_the_data_decides(model: str, scraped: str, ubt: Any) -> None:
    assert check(model, scraped, "answer", ubt=ubt(True), invert=True) == 3
    answer = json.loads(Path("answer/check.json").read_text())
    assert answer["inversion"] is not None
    assert not Path("answer/shapes").exists()


def test_the_same_question_is_answered_again_and_another_one_overwrites_nothing(
    model: str, scraped: str, ubt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(model, scraped, "answer", ubt=ubt(True))
    before = {path: path.read_bytes() for path in Path("answer").rglob("*") if path.is_file()}
    monkeypatch.setattr(examination, "run_trainer", None)  # nothing runs any more
    assert check(model, scraped, "answer", ubt=ubt(True)) == 3
    with pytest.raises(UserMistake, match="not an empty folder, nor that of the same check"):
        check(model, out="answer")
    assert {path: path.read_bytes() for path in Path("answer").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("replaced", ["model", "shard", "config"])
def test_another_model_other_data_or_another_config_of_the_same_name_is_another_question(
    replaced: str, model: str, scraped: str, ubt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(model, "model.ckpt")
    shutil.copytree(scraped, "scraped")
    monkeypatch.setattr(examination, "examine_pairs", lambda *_: None)
    monkeypatch.setattr(page, "write_page", stop := Mock(side_effect=KeyboardInterrupt))
    asked = ubt(True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            check("model.ckpt", "scraped", "answer", ubt=asked)
    if replaced == "model":
        content = torch.load("model.ckpt", weights_only=True)
        next(iter(content["state_dict"].values())).add_(1)
        torch.save(content, "model.ckpt")
    elif replaced == "config":
        Path(asked).write_text(Path(asked).read_text().replace("candidates: 4", "candidates: 8"))
    else:
        write_generated_data(Path("other"), 64, 10, seed=1)
        shutil.copytree("other/train", "scraped", dirs_exist_ok=True)
    with pytest.raises(UserMistake, match="same check of the same model and data"):
        check("model.ckpt", "scraped", "answer", ubt=asked)
    assert stop.call_count == 2


def test_a_check_that_was_stopped_resumes(
    model: str, scraped: str, ubt: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = examination.run_trainer

    def stopped(subcommand: str, *arguments: Any) -> Any:
        if subcommand == "predict":
            raise KeyboardInterrupt
        return run(subcommand, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(examination, "run_trainer", stopped)
        with pytest.raises(KeyboardInterrupt):
            check(model, scraped, "answer", ubt=ubt(True))
    steps = torch.load("answer/ubt/last.ckpt", weights_only=True)["global_step"]
    assert check(model, scraped, "answer", ubt=ubt(True)) == 3
    assert torch.load("answer/ubt/last.ckpt", weights_only=True)["global_step"] == steps
    assert json.loads(Path("answer/check.json").read_text())["pairs"]["poisoned"] > 0


def test_hostile_captions_and_keys_are_only_text(
    model: str, hostile: str, ubt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(model, hostile, "answer", ubt=ubt(True))
    page = Path("answer/check.html").read_text()
    tags = Tags(page).tags
    assert "script" not in tags
    assert "<b>key" not in page
    assert "\x1b" not in page
    assert "\x1b[2J" not in capsys.readouterr().out
    with Path("answer/suspects.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    assert {path.name for path in Path().iterdir()} == {"answer", "hostile.tar", "ubt-True.yaml"}


class Trap:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> Any:
        return (open, ("trapped", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"state_dict": Trap(), "hyper_parameters": {"encoder": "small:nano-32"}}, "tensors"),
        (lambda: {"state_dict": {"encoder.visual.x": torch.ones(2)}}, "does not name its architecture.*--encoder"),
        (
            lambda: {
                "state_dict": {"encoder.logit_scale": torch.ones(3)},
                "hyper_parameters": {"encoder": "small:nano-32"},
            },
            "not of this encoder's architecture",
        ),
    ],
    ids=["code", "unknown", "shapes"],
)
def test_a_hostile_model_is_one_line_and_nothing_is_made(content: Any, message: str) -> None:
    torch.save(content(), "model.ckpt")
    with pytest.raises(UserMistake, match=message) as reported:
        check("model.ckpt", out="answer")
    assert "\n" not in str(reported.value)
    assert [path.name for path in Path().iterdir()] == ["model.ckpt"]


def test_numbers_that_are_not_finite_are_refused(model: str) -> None:
    checkpoint = torch.load(model, weights_only=True)
    name = next(key for key, tensor in checkpoint["state_dict"].items() if tensor.ndim == 2)
    checkpoint["state_dict"][name] = checkpoint["state_dict"][name] * torch.nan
    torch.save(checkpoint, "model.ckpt")
    with pytest.raises(UserMistake, match="finite"):
        check("model.ckpt", out="answer")


def test_the_command_takes_the_data_behind_the_model(
    model: str, scraped: str, ubt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["check", model, scraped, "--out", "answer", "--ubt", ubt(True)]) == 3
    monkeypatch.setattr("sys.argv", ["untrigger", "check", model, scraped, "--out", "answer", "--ubt", ubt(True)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3


def test_a_config_of_something_else_is_reported(model: str, scraped: str, ubt: Any) -> None:
    path = Path(ubt(True))
    path.write_text(path.read_text().replace("class_path: UBT", "class_path: PoisonedCLIP"))
    with pytest.raises(UserMistake):
        check(model, scraped, "answer", ubt=str(path))


def test_a_check_is_run_with_one_task_and_leaves_nothing_otherwise(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistake, match=r"2 tasks of untrigger check, .*: run it with one task \(srun --ntasks=1\)"):
        cli.run(["check", model, "--out", "answer"])
    assert not Path("answer").exists()
