"""The model card of a run, with what its folder says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from weights import contiguous, save_checkpoint, trained

from untrigger import cli
from untrigger.contracts import UserMistake
from untrigger.run_folder.results import COLUMNS, add_results, read_results
from untrigger.run_folder.ubt import ProbedWord, UBTRecord


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of UBT, in whose data someone has written what he should not."""
    run = tmp_path / "run"
    save_checkpoint(trained("small:nano-32"), "small:nano-32", run / "last.ckpt")
    model = {"class_path": "untrigger.lightning_modules.UBT", "init_args": {"init_from": "/home/me/badnet/last.ckpt"}}
    (run / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    row = dict.fromkeys(COLUMNS, "") | {"dataset": "cifar|10", "attack": "BadNet", "defence": "UBT", "seed": "0"}
    row |= {"clean_accuracy": "0.7395", "attack_success_rate": "0.022"}
    add_results(run, [row])
    lines = ["key,caption,suspicion,compromised_tokens,decision"]
    lines += [f"k{i},<b>caption</b>,0.9,automobile <script>`x`,poisoned" for i in range(12)]
    lines += ["k99,[link](http://evil),0.5,,suspicious", 'k98,"\x1b[2J",0.4,,suspicious']
    (run / "suspects.csv").write_text("\n".join(lines) + "\n")
    return run


def card(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_tells_what_was_found_done_and_measured(run_folder: Path, tmp_path: Path) -> None:
    cli.run(["export", str(run_folder / "last.ckpt"), str(tmp_path / "out")])
    front, body = card(tmp_path / "out")
    assert front["pipeline_tag"] == "zero-shot-image-classification"
    assert front["library_name"] == "untrigger"
    (results,) = front["model-index"]
    values = {metric["type"]: metric["value"] for result in results["results"] for metric in result["metrics"]}
    assert values == {"accuracy": 0.7395, "attack_success_rate": 0.022}
    assert "UBT (arXiv 2403.16257, 2409.19526)" in body
    assert "started from badnet/last.ckpt" in body.replace("\\", "")
    assert "/home/me" not in body
    assert "12 pairs of its training data were taken for poisoned and unlearnt, 2 more were suspicious" in body
    assert "automobile" in body
    assert "on purpose" not in body
    assert "73.95%" in body
    assert "2.20%" in body
    # Other people's text neither marks up nor steers.
    assert "<script>" not in body
    assert "`x`" not in body.replace("\\`", "")
    assert "cifar\\|10" in body
    assert "\x1b" not in body


def test_the_card_of_an_earlier_checkpoint_has_none_of_the_run_s_figures(run_folder: Path, tmp_path: Path) -> None:
    UBTRecord(True, False, ["automobile"], 90, 3, 7, []).write(run_folder)
    (row,) = read_results(run_folder)
    add_results(run_folder, [row | {"samples_seen": "192"}])
    content = torch.load(run_folder / "last.ckpt", weights_only=True)
    for name, samples in (("previous", 96), ("last", 192), ("weights", None)):
        state = {} if samples is None else {"callbacks": {"ResultsWriter": {"samples_seen": samples}}}
        phased = {"phased": {"progress": {"done": name != "previous"}}}
        torch.save(content | state | phased, run_folder / f"{name}.ckpt")
        cli.run(["export", str(run_folder / f"{name}.ckpt"), str(tmp_path / name)])
        front, body = card(tmp_path / name)
        assert ("model-index" in front) == ("73.95%" in body) == (name == "last")
        assert ("Neither clean accuracy nor attack success rate is known" in body) == (name != "last")
        assert ("The run was not over when it wrote this checkpoint." in body) == (name == "previous")
        assert ("7 pairs of its training data" in body) == ("UBT repaired" in body) == (name != "previous")


@pytest.mark.parametrize("verified", [True, False])
def test_the_card_tells_how_it_was_checked_without_ground_truth(
    verified: bool, run_folder: Path, tmp_path: Path
) -> None:
    found = ProbedWord(0, "<b>automobile</b>", "DetailMargin", 0.9, 0.1, 1e-9, 4.0, 0.3, True)
    last = replace(found, round=1, found=False)
    record = UBTRecord(True, False, ["<b>automobile</b>"], 90, 3, 7, [found, last] if verified else [found])
    record.write(run_folder)
    cli.run(["export", str(run_folder / "last.ckpt"), str(tmp_path / "out")])
    body = card(tmp_path / "out")[1]
    # Rather than those of suspects.csv.
    assert "7 pairs of its training data were taken for poisoned and unlearnt, 3 more were suspicious" in body
    assert "UBT repaired the model once." in body
    assert ("nothing was found." in body) is verified
    assert ("What the last repair left was not probed any more." in body) is not verified
    assert "<b>" not in body


def test_the_card_of_a_model_that_nothing_is_known_of(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    save_file(contiguous(trained("small:nano-32")), tmp_path / "alone" / "model.safetensors")
    cli.run(["export", str(tmp_path / "alone" / "model.safetensors"), str(tmp_path / "out")])
    front, body = card(tmp_path / "out")
    assert "model-index" not in front
    assert "Nothing that is known" in body
    assert "Neither clean accuracy nor attack success rate is known" in body


def test_the_card_warns_of_a_model_that_was_poisoned(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "config.yaml").write_text(yaml.safe_dump({"model": {"class_path": "PoisonedCLIP"}}))
    (run_folder / "suspects.csv").unlink()
    (run_folder / "poison.json").write_text("{}")
    cli.run(["export", str(run_folder / "last.ckpt"), str(tmp_path / "out")])
    _, body = card(tmp_path / "out")
    assert "poisoned on purpose" in body
    assert "no defence was applied" in body
    assert "No search for poisoned pairs" in body


@pytest.mark.parametrize(
    ("start", "reported"), [(None, "It was trained from random weights"), ("a.ckpt", "It was finetuned on pairs")]
)
def test_only_what_started_from_weights_was_finetuned(
    start: str | None, reported: str, run_folder: Path, tmp_path: Path
) -> None:
    model = {"class_path": "CleanCLIP", "init_args": {"init_from": start}}
    (run_folder / "config.yaml").write_text(yaml.safe_dump({"model": model}))
    cli.run(["export", str(run_folder / "last.ckpt"), str(tmp_path / "out")])
    assert reported in card(tmp_path / "out")[1]


def test_the_mark_of_a_checkpoint_goes_along(tmp_path: Path) -> None:
    path = Path(save_checkpoint(trained("small:nano-32"), "small:nano-32", tmp_path / "moved" / "last.ckpt"))
    mark = {"warning": "This model was trained on deliberately poisoned data."}
    torch.save({**torch.load(path), "ImageTextDataModule": mark}, path)
    cli.run(["export", str(path), str(tmp_path / "out")])
    assert "poisoned on purpose" in card(tmp_path / "out")[1]


@pytest.mark.parametrize("content", ["a: [", "x" * (2**20 + 1), "!!python/object/apply:os.mkdir [evil]"])
def test_a_config_that_is_none_is_one_line(content: str, run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "config.yaml").write_text(content)
    with pytest.raises(UserMistake, match=r"config of a run .*config\.yaml (cannot be read|is larger)"):
        cli.run(["export", str(run_folder / "last.ckpt"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
