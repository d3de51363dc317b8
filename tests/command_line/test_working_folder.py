"""Modules of the working folder: searched last for what trains, never for what reads, imported when the user asks.

That libraries come first is seen in tests/test_extending.py, in processes that import them afresh.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from untrigger import cli
from untrigger.command_line.own_modules import asked_imports, import_modules
from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.poisoning import Poison, write_manifest

MARK = "open({mark!r}, 'a').write(__name__ + ' ')\n"
CORNER = """
from untrigger.datamodules import Trigger


class {name}(Trigger):
    def __call__(self, images, keys):
        return images.flip(2)
"""
SMALL = [
    *("--model", "PoisonedCLIP", "--model.encoder", "small:nano-32", "--data", "ImageTextDataModule"),
    *("--data.train_shards", "shapes/train", "--data.zero_shot", "shapes", "--data.batch_size", "8"),
    *("--data.num_workers", "0", "--trainer.fast_dev_run", "true"),
]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there as soon as a module of the folder is run that nobody asked for."""
    mark = tmp_path / "mark"
    for name in ("yaml", "torch", "nltk", "sitecustomize", "downloaded"):
        (tmp_path / f"{name}.py").write_text(MARK.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    write_generated_data(tmp_path / "shapes", 16, 8)
    return mark


def test_a_misspelt_class_and_module_are_reported(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    (mark.parent / "near_mine.py").write_text(CORNER.format(name="Flipped"))
    plan = ["--data.poison", "PoisonPlan", "--data.poison.target", "star", "--data.poison.count", "2"]
    with pytest.raises(UserMistake, match=r"near_mine has no class Fliped; did you mean Flipped\?"):
        cli.run(["fit", *SMALL, *plan, "--data.poison.trigger", "near_mine.Fliped"])
    assert sys.path[-1] == str(mark.parent)


@pytest.mark.parametrize("given", [False, True])
def test_a_run_that_a_mistake_ends_before_it_begins_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.setenv("UNTRIGGER_RUN", "")
    monkeypatch.delenv("UNTRIGGER_RUN")
    module = ["--model", "PoisonedCLIP", "--model.encoder", "small:nano-32", "--data", "ImageTextDataModule"]
    folder = ["--trainer.default_root_dir", "mine/run"] if given else []
    module += ["--trainer.max_epochs", "1"]
    if given:
        Path("mine", "run").mkdir(parents=True)
        Path("mine", "run", "events.out.tfevents.1.host.2.0").write_text("of another")
    with pytest.raises(UserMistake, match=r"missing\.tar does not exist"):
        cli.run(["fit", *module, "--data.train_shards", "missing.tar", *folder])
    left = [path.as_posix() for path in Path().rglob("*") if path.is_file()]
    assert left == (["mine/run/events.out.tfevents.1.host.2.0"] if given else [])
    assert Path("mine").exists() == given
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["check", "missing.ckpt", "--out", "out"], "missing.ckpt"),
        (["clean", "missing.ckpt", "shapes/train", "out"], "missing.ckpt"),
        (["export", "missing.ckpt", "out"], "missing.ckpt"),
        (["report", "missing"], "missing"),
        (["shards", "csv", "missing.csv", "out"], "missing.csv"),
        (
            [
                *("poison", "--shards", "shapes/train", "--out", "out", "--image_size", "32", "--plan", "PoisonPlan"),
                *("--plan.target", "star", "--plan.count", "2", "--plan.trigger", "downloaded.Corner"),
            ],
            "downloaded",
        ),
    ],
)
def test_what_reads_does_not_look_there(mark: Path, arguments: list[str], reported: str) -> None:
    with pytest.raises(UserMistake, match=reported):
        cli.run(arguments)
    assert str(mark.parent) not in sys.path
    assert not mark.exists()


def test_a_manifest_s_class_is_known_once_its_module_is_asked_for(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    write_manifest(Poison([PoisonPlan(BadNet(4), "star", count=1)], [["000000000"]]), "poison.json")
    (mark.parent / "asked_for.py").write_text(CORNER.format(name="Upside"))
    sys.path.append(str(mark.parent))
    import_modules("asked_for")
    kind = sys.modules["asked_for"].Upside
    write_manifest(Poison([PoisonPlan(kind(), "star", count=1)], [["000000000"]]), "poison.json")
    for name in [name for name in sys.modules if name == "asked_for"]:
        del sys.modules[name]
    text = Path("poison.json").read_text()
    assert "asked_for.Upside" in text
    cli.run(["fit", *SMALL, "--data.poison", "poison.json", "--imports", "asked_for"])
    assert "asked_for" in sys.modules
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], []),
        (["fit", "--imports", "one"], ["one"]),
        (["fit", "--imports=[one, two.three]"], ["one", "two.three"]),
        (["fit", "--imports+=one", "--imports+", "two"], ["one", "two"]),
        (["fit", "--config", "own.yaml"], ["of_file"]),
        (["fit", "--config", "own.yaml", "--imports", "one"], ["of_file", "one"]),
        # What a config or a manifest is read for names no modules that are imported.
        (["fit", "--config", "other.yaml", "--data.attack", "own.yaml"], []),
        (["fit", "--config", "missing.yaml", "--imports", "{"], []),
    ],
)
def test_only_the_user_s_own_options_ask_for_modules(
    arguments: list[str], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(yaml.safe_dump({"imports": "of_file"}))
    Path("other.yaml").write_text(yaml.safe_dump({"model": {"imports": "not_this"}}))
    assert asked_imports(arguments) == names


@pytest.mark.parametrize(
    ("name", "content", "reported"),
    [
        ("../my_study", "", "is no name of a module"),
        ("my_study.py", "", "is named my_study"),
        ("not_there", None, "not_there"),
        ("needs_more", "import not_installed_anywhere", "not_installed_anywhere"),
        ("fails", "1 / 0", "ZeroDivisionError"),
        ("no_python", "def", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    name: str, content: str | None, reported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    if content:
        (tmp_path / f"{name}.py").write_text(content)
    with pytest.raises(UserMistake, match=f"imports: .*({reported})") as mistake:
        import_modules(name)
    assert "\n" not in str(mistake.value)


def test_configs_of_the_package_are_found_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from untrigger.files.packaged_configs import packaged_config

    monkeypatch.chdir(tmp_path)
    for name in ("configs/ubt/cifar10.yaml", "ubt/cifar10.yaml"):
        assert Path(packaged_config(name)).read_text().startswith("# UBT")
    Path("ubt").mkdir()
    Path("ubt/cifar10.yaml").write_text("mine")
    for name in ("ubt/cifar10.yaml", "configs/../../x.yaml", "missing.yaml", "configs", "/etc/passwd", "a: {b: c}"):
        assert packaged_config(name) == name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ubt/cifar1.yaml", "; did you mean ubt/cifar10.yaml?"),
        ("configs/utb/cifar10.yml", "; did you mean configs/ubt/cifar10.yaml?"),
        ("ubt/cifar10", "; did you mean ubt/cifar10.yaml?"),
        ("quite/another.yaml", ""),
        ("bench cifr10.yaml", "; did you mean bench/cifar10.yaml?"),
        ("bench configs/bench/tiny10.yaml", "; did you mean configs/bench/tiny100.yaml?"),
    ],
)
def test_the_packages_config_that_is_nearest_to_a_missing_one_is_named(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    command, _, name = name.rpartition(" ")
    with pytest.raises(UserMistake) as mistake:
        cli.run([command or "fit", "--config", name])
    assert str(mistake.value).endswith(f"{name} does not exist{meant}")
