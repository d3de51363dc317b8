"""Whether a run defends or plants, and what results.csv calls it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, ResultsWriter
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import BadCLIP, BaseCLIPModule, CleanCLIP, PoisonedCLIP
from untrigger.lightning_modules.encoders import has_weights


class Own(PoisonedCLIP):
    """Says nothing of itself."""


class Pretrains(PoisonedCLIP):
    is_defence = True


class Attacks(BaseCLIPModule):
    is_defence = False


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(PoisonedCLIP("small:nano-32").encoder.state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "poison", "from_random", "from_weights"),
    [
        (PoisonedCLIP, "none", "none", "none"),
        (PoisonedCLIP, "plan", "none", "none"),
        (PoisonedCLIP, "manifest", "none", "none"),
        (CleanCLIP, "none", "CleanCLIP", "CleanCLIP"),
        (CleanCLIP, "plan", "none", "CleanCLIP"),
        (CleanCLIP, "manifest", "none", "CleanCLIP"),
        (Own, "none", "Own", "Own"),
        (Own, "plan", "none", "none"),
        (Own, "manifest", "none", "Own"),
        (Pretrains, "plan", "Pretrains", "Pretrains"),
        (Attacks, "none", "none", "none"),
    ],
)
def test_a_run_that_trains_poison_into_a_model_is_no_defence(
    kind: type[BaseCLIPModule], poison: str, from_random: str, from_weights: str, weights: str
) -> None:
    for arguments, name in (({}, from_random), ({"init_from": weights}, from_weights)):
        module = kind("small:nano-32", **arguments)
        trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(training_poison=poison))
        module.trainer = trainer
        assert module.defence == name


def test_a_class_names_itself_unless_it_says_that_it_is_no_defence() -> None:
    assert [kind("small:nano-32").defence for kind in (PoisonedCLIP, Own, Pretrains, Attacks)] == [
        *("none", "Own", "Pretrains", "none")
    ]
    assert BadCLIP("small:nano-32", "star").defence == "none"
    module, trainer = CleanCLIP("small:nano-32"), Trainer(accelerator="cpu", logger=False)
    module.trainer = trainer  # without a data module that tells of poison
    assert module.defence == "CleanCLIP"


def test_a_name_that_stands_for_weights(tmp_path: Path) -> None:
    assert all(map(has_weights, ("hf:openai/clip", "open_clip:RN50/openai", f"small:{tmp_path}")))
    assert not any(map(has_weights, ("open_clip:RN50", "small:base-32")))


def test_the_origin_of_the_poison_in_the_data(tmp_path: Path) -> None:
    plan = PoisonPlan(BadNet(size=4), "star", count=1)
    found = [ImageTextDataModule(poison=given).training_poison for given in (None, plan, [plan], "p.json", tmp_path)]
    assert found == ["none", "plan", "plan", "manifest", "manifest"]


def rows(folder: Path) -> list[tuple[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return [(row["attack"], row["defence"]) for row in csv.DictReader(file)]


def trainer(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[CleanAccuracy(), AttackSuccessRate(), ResultsWriter()],
    )


def test_a_poisoned_model_and_its_defence_are_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_generated_data(tmp_path / "data", 16, 8)

    def data(**given: Any) -> ImageTextDataModule:
        folder = tmp_path / "data"
        return ImageTextDataModule(str(folder / "train"), str(folder), batch_size=8, num_workers=0, **given)

    def clean_clip(**given: Any) -> CleanCLIP:
        return CleanCLIP("small:nano-32", self_supervised_weight=0, **given)

    plan = PoisonPlan(BadNet(size=4), "star", count=4)
    caplog.set_level("INFO")
    first = trainer(tmp_path / "poisoned")
    first.fit(clean_clip(), data(poison=plan))
    first.save_checkpoint(tmp_path / "last.ckpt")
    assert rows(tmp_path / "poisoned") == [("BadNet", "none")]
    assert "the defence of this run of CleanCLIP is none" in caplog.text
    trainer(tmp_path / "again").validate(clean_clip(), data(attack=plan), tmp_path / "last.ckpt", verbose=False)
    assert rows(tmp_path / "again") == [("BadNet", "none")]

    weights, manifest = str(tmp_path / "last.ckpt"), str(tmp_path / "poisoned" / "poison.json")
    trainer(tmp_path / "own").fit(Own("small:nano-32", init_from=weights), data(attack=manifest))
    trainer(tmp_path / "own").fit(clean_clip(init_from=weights), data(poison=manifest))
    assert rows(tmp_path / "own") == [("BadNet", "Own"), ("BadNet", "CleanCLIP")]

    (tmp_path / "data" / "train" / "poison.json").write_text(Path(manifest).read_text())
    trainer(tmp_path / "baked").fit(Own("small:nano-32"), data(attack=manifest))
    assert rows(tmp_path / "baked") == [("BadNet", "none")]
