"""From a model that is not trusted to one that comes back."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from untrigger import cli
from untrigger.commands.clean import command as clean_command
from untrigger.commands.clean.command import clean
from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders.identify import open_encoder
from untrigger.run_folder.ubt import UBTRecord

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")


def tensors(model: str | Path) -> dict[str, torch.Tensor]:
    return open_encoder(str(model))[0].state_dict()


def differs(one: str | Path, other: str | Path) -> bool:
    first, second = tensors(one), tensors(other)
    return any(not torch.equal(first[name], second[name]) for name in first)


def test_a_model_with_nothing_suspicious_comes_back_byte_for_byte(model: str, scraped: str, ubt: Any) -> None:
    assert cli.run(["clean", model, scraped, "out", "--ubt", ubt(False)]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["check-before", "model"]
    assert Path("out/model/downloaded.ckpt").read_bytes() == Path(model).read_bytes()


def test_a_folder_comes_back_byte_for_byte(model: str, scraped: str, ubt: Any) -> None:
    cli.run(["export", model, "folder"])
    Path("folder/more").mkdir()
    Path("folder/more/notes.txt").write_text("mine")
    assert clean("folder", scraped, "out", ubt=ubt(False)) == 0
    for path in (path for path in Path("folder").rglob("*") if path.is_file()):
        assert (Path("out/model") / path.relative_to("folder")).read_bytes() == path.read_bytes()


def test_a_suspicious_model_unlearns_is_checked_again_and_comes_back(
    model: str, scraped: str, ubt: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(model).read_bytes()
    # These settings find something in any model: in the cleaned one too.
    assert clean(model, scraped, "out", ubt=ubt(True)) == 3
    assert json.loads(Path("out/check-after/check.json").read_text())["model"] == "out/check-before/ubt/last.ckpt"
    assert differs("out/model", model)
    assert not differs("out/model", "out/check-before/ubt/last.ckpt")
    card = Path("out/model/README.md").read_text()
    assert "unlearnt a suspected backdoor with UBT" in card
    found, after = (UBTRecord.read(Path("out", step, "ubt")) for step in ("check-before", "check-after"))
    assert found.alarm
    assert after.alarm
    assert f"{found.poisoned} pairs of its training data were taken for poisoned and unlearnt" in card
    assert "UBT repaired the model once. What the last repair left was not probed any more." in card
    assert "**A second check of the finished model on the same data still found something suspicious" in card
    assert "that takes a labelled test set and the trigger" in card
    printed = capsys.readouterr().out
    assert f"{found.left_out} of 64 pairs fewer" in printed
    assert "--data.exclude out/check-before/suspects.csv" in printed
    assert Path(model).read_bytes() == before
    with pytest.raises(UserMistake, match="is there already, and nothing is overwritten"):
        clean(model, scraped, "out", ubt=ubt(True))


def test_with_clean_pairs_it_is_finetuned_instead(model: str, scraped: str, ubt: Any) -> None:
    config = yaml.safe_load(Path(ubt(True)).read_text())
    config["trainer"] |= {"max_epochs": 1, "reload_dataloaders_every_n_epochs": 0}
    config["model"] = {"class_path": "CleanCLIP", "init_args": {"encoder": "small:nano-32", "lr": 1e-3}}
    own = yaml.safe_load((files("untrigger") / "configs" / "cleanclip" / "cifar10.yaml").read_text())
    views = {name: own["data"]["init_args"][name] for name in ("image_view", "text_view")}
    config["data"]["init_args"] |= views
    Path("cleanclip.yaml").write_text(yaml.safe_dump(config))
    clean(model, scraped, "out", clean_shards=scraped, ubt=ubt(True), cleanclip="cleanclip.yaml")
    assert differs("out/model", model)
    assert not differs("out/model", "out/cleanclip/last.ckpt")
    card = Path("out/model/README.md").read_text()
    assert "CleanCLIP" in card
    assert f"{UBTRecord.read(Path('out/check-before/ubt')).poisoned} pairs of its training data were taken for" in card
    assert "second check" in card


def test_what_was_stopped_resumes(model: str, scraped: str, ubt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check, asked = clean_command.check, []

    def stopped(given: str, *arguments: Any) -> int:
        asked.append(given)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return check(given, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(clean_command, "check", stopped)
        with pytest.raises(KeyboardInterrupt):
            clean(model, scraped, "out", ubt=ubt(True))
    written = Path("out/check-before/ubt/last.ckpt").stat().st_mtime_ns
    assert clean(model, scraped, "out", ubt=ubt(True)) == 3
    assert Path("out/check-before/ubt/last.ckpt").stat().st_mtime_ns == written
    assert differs("out/model", model)


def test_a_format_that_cannot_hold_the_model_is_reported_before_anything_starts(model: str, scraped: str) -> None:
    with pytest.raises(UserMistake, match="cannot be exported with --format hf"):
        clean(model, scraped, "out", format="hf")
    assert not Path("out").exists()
