"""Every config that ships is built, with a small model and small data in place of what it names."""

from __future__ import annotations

import re
import sys
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule
from PIL import Image
from vision_transformers import small_vit

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.commands.bench.grid import Cell, expand
from untrigger.commands.bench.runner import BenchPaths, fit_arguments
from untrigger.commands.bench.specification import BenchSpec
from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import write_generated_data

ROOT = Path(str(files("untrigger"))) / "configs"
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.yaml") if path.parent.name != "bench")
BENCHES = sorted(str(path) for path in (ROOT / "bench").glob("*.yaml"))


def test_there_are_configs() -> None:
    assert "poisoned_clip/cifar10.yaml" in CONFIGS


def adapted(config: str, data: Path, folder: Path) -> Path:
    """The config with plans that 32 pictures of shapes have room for."""
    content = yaml.safe_load((ROOT / config).read_text())
    plans: Any = content["data"]["init_args"].get("poison") or []
    for plan in [plans] if isinstance(plans, dict) else plans:
        arguments = plan["init_args"]
        arguments.pop("rate", None)
        arguments |= {"target": "star", "count": 1}
        trigger = arguments.get("trigger", {"class_path": "NoTrigger"})
        if trigger["class_path"] == "GivenPicture":
            trigger["init_args"] |= {"shard": str(data / "test" / "0.tar"), "pictures": ["s0000000.jpg"]}
        if trigger["class_path"] == "NamedConcept":
            trigger["init_args"]["names"] = ["ring"]
        if trigger["class_path"] == "Patch":
            Image.new("RGB", (4, 4), "red").save(folder / "patch.png")
            trigger["init_args"]["file"] = str(folder / "patch.png")
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "config.yaml"


def _some_keys(folder: Path) -> Path:
    """A list of pairs, for a method that is told which ones to look at."""
    (shard,) = (folder / "data" / "train").glob("*.tar")
    with tarfile.open(shard) as tar:
        keys = sorted({name.partition(".")[0] for name in tar.getnames()})
    (folder / "keys.txt").write_text("\n".join(keys[:4]))
    return folder / "keys.txt"


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_builds_and_takes_a_step(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    write_generated_data(tmp_path / "data", 32, 20)
    text = (ROOT / config).read_text()
    encoder = f"hf:{small_vit(tmp_path / 'vit')}" if "class_path: RVPT" in text else "small:nano-32"
    overlay = [
        *("--model.encoder", encoder, "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"),
        *("--trainer.precision", "32-true", "--trainer.default_root_dir", str(tmp_path / "run")),
        *("--data.train_shards", str(tmp_path / "data" / "train"), "--data.zero_shot", str(tmp_path / "data")),
        *("--data.batch_size", "8", "--data.num_workers", "0", "--progress_bar.leave", "false"),
        *(("--model.target", "star") if "patch_size:" in text else ()),
        *(("--model.num_classes", "10") if "num_classes:" in text else ()),
        *(("--data.label_field", "label") if "label_field:" in text else ()),
        *(("--model.given", str(_some_keys(tmp_path))) if "given: null" in text else ()),
    ]
    cli = UntriggerCLI(["fit", "--config", str(adapted(config, tmp_path / "data", tmp_path)), *overlay])
    assert isinstance(cli.model, LightningModule)
    assert isinstance(cli.datamodule, LightningDataModule)
    # These begin with a phase in which no weight of the model moves.
    still = any(f"class_path: {name}" in text for name in ("UBT", "InverTune", "TargetNaming"))
    assert cli.trainer.global_step == (0 if still else 1)


def _cells(path: str) -> list[Cell]:
    content = yaml.safe_load(Path(path).read_text())
    parser = ArgumentParser()
    parser.add_class_arguments(BenchSpec, "spec")
    return expand(parser.instantiate(parser.parse_object({"spec": content | {"data": "cifar10"}})).spec)


def _kind(cell: Cell) -> tuple[object, ...]:
    """What tells runs apart beside numbers, targets and files: of each kind, one is tried."""
    pairs = zip(cell.arguments[::2], cell.arguments[1::2], strict=True)
    classes = ("trigger", "poison", "attack", "evidence")
    flags = [(flag, value if flag.rpartition(".")[2] in classes else "") for flag, value in pairs]
    return cell.config, cell.subcommand, tuple(flags)


KINDS = {_kind(cell): (f"{Path(path).stem}-{cell.name}", cell) for path in BENCHES for cell in _cells(path)}


def test_every_bench_has_runs() -> None:
    assert len(BENCHES) > 5
    assert all(map(_cells, BENCHES))
    assert len(KINDS) > 50


@pytest.mark.parametrize("cell", [cell for _, cell in KINDS.values()], ids=[name for name, _ in KINDS.values()])
def test_a_run_of_a_bench_is_one_of_the_package(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    paths = BenchPaths(tmp_path, tmp_path, tmp_path, "cifar10")
    arguments = [word.replace("last.ckpt", "absent.ckpt") for word in fit_arguments(cell, paths)]
    with pytest.raises((UserMistake, SystemExit)) as caught:
        UntriggerCLI(arguments)
    # Everything is understood, up to data, a checkpoint, a patch and an encoder that are not there.
    assert re.search(r"cifar10|absent|patch\.png|runs/vit-32", str(caught.value)), caught.value
