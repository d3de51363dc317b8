"""A file that is named for ``data.poison`` or ``data.attack`` is a manifest, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import LightningDataModule

from untrigger.cli import run
from untrigger.contracts import Preprocessing, UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.poisoning import Poison, write_manifest
from untrigger.errors.lines import OneLineErrors

HOSTILE = {"class_path": "leaves_a_mark.Thing"}
FILES = [
    ("plan.json", json.dumps(HOSTILE)),
    ("plan", json.dumps(HOSTILE)),
    ("plan.yaml", yaml.safe_dump(HOSTILE)),
    ("poison.json", json.dumps([HOSTILE])),
    ("plan.json", ""),
    ("plan.json", "{}"),
    ("plan.yaml", "plans: []"),
]
SWITCHES = pytest.mark.parametrize("switch", ["poison", "attack"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 32, 16)
    return folder


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there as soon as any of the modules beside the files is imported."""
    mark = tmp_path / "mark"
    for name in ("leaves_a_mark", "plan", "poison"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\nclass Thing: pass\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    return mark


@pytest.fixture
def parser() -> OneLineErrors:
    """What LightningCLI's parser has of the data."""
    parser = OneLineErrors()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LightningDataModule, "data")
    return parser


def config(data: Path, **init_args: object) -> list[str]:
    arguments = {"train_shards": str(data / "train"), "zero_shot": str(data), "batch_size": 8, "num_workers": 0}
    content = {"data": {"class_path": "ImageTextDataModule", "init_args": arguments | init_args}}
    Path("config.yaml").write_text(yaml.safe_dump(content))
    return ["--config", "config.yaml"]


def set_up(parser: OneLineErrors, arguments: list[str], preprocessing: Preprocessing) -> ImageTextDataModule:
    module: ImageTextDataModule = parser.instantiate(parser.parse_args(arguments)).data
    module.preprocessing = preprocessing
    module.setup("fit")
    return module


@SWITCHES
@pytest.mark.parametrize("way", ["command line", "config"])
@pytest.mark.parametrize(("name", "content"), FILES)
def test_a_file_is_no_class_and_nothing_is_imported(
    mark: Path,
    data: Path,
    parser: OneLineErrors,
    preprocessing: Preprocessing,
    switch: str,
    way: str,
    name: str,
    content: str,
) -> None:
    Path(name).write_text(content)
    given = config(data, **{switch: name}) if way == "config" else [*config(data), f"--data.{switch}", name]
    with pytest.raises(UserMistake, match=rf"poison manifest {name}: it is (not JSON|JSON of another kind)"):
        set_up(parser, given, preprocessing)
    assert not mark.exists()


@SWITCHES
def test_the_command_refuses_it_before_training(mark: Path, data: Path, switch: str) -> None:
    Path("plan.json").write_text(json.dumps(HOSTILE))
    model = ["--model", "PoisonedCLIP", "--model.encoder", "small:nano-32", "--trainer.max_epochs", "1"]
    with pytest.raises(UserMistake, match=r"poison manifest plan\.json: it is JSON of another kind"):
        run(["fit", *config(data), *model, f"--data.{switch}", "plan.json", "--trainer.default_root_dir", "run"])
    assert not mark.exists()
    assert not Path("run", "config.yaml").exists()


@SWITCHES
def test_neither_a_list_of_files_nor_a_part_of_one_is_a_plan(
    mark: Path, data: Path, parser: OneLineErrors, preprocessing: Preprocessing, switch: str
) -> None:
    Path("plan.json").write_text(json.dumps(HOSTILE))
    with pytest.raises(UserMistake, match=r"a list of poison plans has 'plan\.json'"):
        set_up(parser, config(data, **{switch: ["plan.json"]}), preprocessing)
    with pytest.raises(UserMistake, match=rf"data\.{switch}: "):
        set_up(parser, [*config(data, **{switch: "plan.json"}), f"--data.{switch}.count", "3"], preprocessing)
    assert not mark.exists()


def test_the_command_poison_takes_a_file_as_a_manifest_too(mark: Path, data: Path) -> None:
    Path("plan.json").write_text(json.dumps(HOSTILE))
    with pytest.raises(UserMistake, match=r"poison manifest plan\.json: it is JSON of another kind"):
        run(["poison", "--shards", str(data / "train"), "--out", "out", "--image_size", "32", "--plan", "plan.json"])
    assert not mark.exists()


@SWITCHES
def test_a_manifest_without_plans_is_not_no_poison(
    mark: Path, data: Path, parser: OneLineErrors, preprocessing: Preprocessing, switch: str
) -> None:
    write_manifest(Poison([]), "none.json")
    with pytest.raises(UserMistake, match=r"none\.json: it has no plan"):
        set_up(parser, [*config(data), f"--data.{switch}", "none.json"], preprocessing)
    with pytest.raises(UserMistake, match="the list of poison plans is empty"):
        set_up(parser, config(data, **{switch: []}), preprocessing)


def test_a_manifest_without_pairs_is_measured_but_poisons_nothing(
    mark: Path, data: Path, parser: OneLineErrors, preprocessing: Preprocessing
) -> None:
    write_manifest(Poison([PoisonPlan(BadNet(size=4), "star", count=1)]), "none.json")
    with pytest.raises(UserMistake, match=r"none\.json names no pair"):
        set_up(parser, [*config(data), "--data.poison", "none.json"], preprocessing)
    measured = set_up(parser, [*config(data), "--data.attack", "none.json"], preprocessing)
    assert [attack.name for attack in measured.attacks] == ["BadNet"]


def test_a_manifest_is_saved_as_the_path_that_was_given(mark: Path, data: Path, parser: OneLineErrors) -> None:
    write_manifest(Poison([PoisonPlan(BadNet(size=4), "star", count=1)], [["k"]]), "poison.json")
    saved = parser.dump(parser.parse_args([*config(data), "--data.attack", "poison.json"]))
    assert yaml.safe_load(saved)["data"]["init_args"]["attack"] == "poison.json"
    Path("again.yaml").write_text(saved)
    assert str(parser.instantiate(parser.parse_args(["--config", "again.yaml"])).data.attack) == "poison.json"
    assert not mark.exists()


def test_a_plan_is_saved_as_a_plan(mark: Path, data: Path, parser: OneLineErrors) -> None:
    plan = {"class_path": "PoisonPlan", "init_args": {"target": "star", "rate": 0.5, "trigger": "BadNet"}}
    for given in (plan, [plan, plan]):
        saved = parser.dump(parser.parse_args(config(data, poison=given)))
        Path("again.yaml").write_text(saved)
        again = parser.instantiate(parser.parse_args(["--config", "again.yaml"])).data.poison
        assert [type(one) for one in ([again] if given is plan else again)] == [PoisonPlan] * (
            1 if given is plan else 2
        )


@pytest.mark.parametrize("name", ["PoisonPlann", "no_such_module.Plan"])
def test_what_is_neither_a_file_nor_a_class_is_reported(
    mark: Path, data: Path, parser: OneLineErrors, name: str
) -> None:
    with pytest.raises(UserMistake, match=rf"data\.poison: .*{name.partition('.')[0]}"):
        parser.parse_args([*config(data), "--data.poison", name])
