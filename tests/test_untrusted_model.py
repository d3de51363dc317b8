"""What the page for the engineer says, done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import untrigger
from untrigger import cli
from untrigger.commands.check import examination
from untrigger.commands.check.calibration import NOT_MEASURED, read_calibration
from untrigger.commands.check.verdict import Verdict
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules.encoders import build_encoder

PAGE = Path(__file__).parents[1] / "docs" / "untrusted_model.md"


def small_config(tmp_path: Path) -> str:
    """The package's config of UBT for small encoders, on one tenth of the work."""
    config = yaml.safe_load((Path(untrigger.__file__).parent / "configs" / "ubt" / "cifar10.yaml").read_text())
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    less = {"epochs": 1, "steps": 2}
    config["model"]["init_args"]["probe"] |= less
    config["model"]["init_args"]["repair"] |= less
    config["model"]["init_args"] |= {"rounds": 1, "sampled_pairs": 96}
    config["data"]["init_args"] |= {"batch_size": 16, "num_workers": 0}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_every_command_of_the_page_runs_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["untrigger"])
    quick = small_config(tmp_path)
    monkeypatch.setattr(examination, "config_for", lambda *_: quick)
    monkeypatch.setattr(examination, "_PICTURES", 32)
    monkeypatch.setattr(examination, "_STEPS", 3)
    monkeypatch.setattr(examination, "_BATCH", 8)
    torch.set_num_threads(1)
    write_generated_data(tmp_path / "data", 96, 10, shard_size=48)
    (tmp_path / "data" / "train").rename(tmp_path / "scraped")
    torch.manual_seed(0)
    tensors = {f"encoder.{name}": tensor for name, tensor in build_encoder("small:nano-32").state_dict().items()}
    checkpoint = {"state_dict": tensors, "hyper_parameters": {"encoder": "small:nano-32"}, "loops": {}}
    torch.save(checkpoint, "downloaded.ckpt")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [command[1] for command in commands] == ["check", "check", "clean", "export"]
    for program, *arguments in commands:
        assert program == "untrigger"
        assert cli.run(arguments) in (0, 3)
    for made in (
        *("answer/check.html", "answer/check.json", "answer/suspects.csv", "answer/ubt/ubt.json", "answer/density"),
        *("answer/density/similarities.csv", "answer-without-data/decree", "exported/README.md"),
        *("cleaned/model", "cleaned/check-before/check.html"),
    ):
        assert Path(made).exists(), made


def test_the_rates_of_the_page_are_those_of_the_check() -> None:
    page = " ".join(PAGE.read_text().split())
    for with_data in (True, False):
        tried = read_calibration(with_data)
        if not tried.measured:
            assert f"{'With' if with_data else 'Without'} data: {NOT_MEASURED}" in page
            continue
        for share in (tried.false_alarms, tried.detections):
            assert f"{share.count} of {share.of}" in page


def test_the_page_names_the_keys_of_the_json() -> None:
    page = PAGE.read_text()
    answer = Verdict("m", "small:base-32", None, examination.Inversion(False, 1.0, 1.0), None, 1.0).as_json()
    for key in re.findall(r"for machines: (.*?) \|", page)[0].split(", "):
        assert key.strip("`") in answer
