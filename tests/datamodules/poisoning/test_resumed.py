from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from untrigger import cli
from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, Blended, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.poisoning import Poison, write_manifest
from untrigger.datamodules.poisoning.resumed import changed_poison, poison_state
from untrigger.datamodules.poisoning.spec import PoisonSpec

PLAN = PoisonPlan(BadNet(size=4), "cat", count=2)
OTHERS: dict[str, tuple[PoisonSpec, str]] = {
    "nothing": (None, "no plan instead of a plan"),
    "more plans": ([PLAN, PLAN], "2 plans instead of a plan"),
    "count": (PoisonPlan(BadNet(size=4), "cat", count=3), "count 3 instead of 2"),
    "target": (PoisonPlan(BadNet(size=4), "dog", count=2), "target 'dog' instead of 'cat'"),
    "size": (PoisonPlan(BadNet(size=5), "cat", count=2), "trigger.size 5 instead of 4"),
    "templates": (PoisonPlan(BadNet(size=4), "cat", count=2, templates=["{c}"]), "templates ['{c}'] instead of ["),
    "trigger": (PoisonPlan(Blended(), "cat", count=2), "trigger 'Blended' instead of 'BadNet'"),
}


def kept(poison: Poison | None, spec: PoisonSpec) -> dict[str, object]:
    """The state as it comes out of a checkpoint."""
    file = io.BytesIO()
    torch.save(poison_state(poison, spec), file)
    file.seek(0)
    state: dict[str, object] = torch.load(file, weights_only=True)
    return state


def test_the_same_plan_and_its_manifest_are_the_same_poison(tmp_path: Path) -> None:
    poison = Poison([PLAN], [["a", "b"]])
    write_manifest(poison, tmp_path / "poison.json")
    state = kept(poison, PLAN)
    same = PoisonPlan(BadNet(size=4), "cat", count=2)
    assert [changed_poison(state, spec) for spec in (same, [same], tmp_path / "poison.json")] == [""] * 3
    assert not changed_poison(kept(None, None), None)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_differs_is_named(kind: str) -> None:
    spec, reported = OTHERS[kind]
    assert changed_poison(kept(Poison([PLAN], [["a", "b"]]), PLAN), spec).startswith(reported)


def test_a_manifest_of_other_pairs_is_told_and_one_that_names_pairs_of_other_shards_is_not(tmp_path: Path) -> None:
    given = tmp_path / "poison.json"
    write_manifest(Poison([PLAN], [["a", "b", "elsewhere"]]), given)
    state = kept(Poison([PLAN], [["a", "b"]]), given)
    assert changed_poison(state, given) == ""
    write_manifest(Poison([PLAN], [["a", "c"]]), given)
    assert changed_poison(state, given) == f"another choice of pairs in {given}"


@pytest.mark.filterwarnings("ignore:The schedule of this run is not")
def test_a_run_is_not_resumed_with_other_poison_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    torch.set_num_threads(1)
    write_generated_data(Path("data"), 40, 1)
    config = {
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, "enable_progress_bar": False},
        "model": {"class_path": "PoisonedCLIP", "init_args": {"encoder": "small:nano-32"}},
        "data": {"class_path": "ImageTextDataModule", "init_args": {"train_shards": "data/train", "num_workers": 0}},
    }
    config["trainer"] |= {"log_every_n_steps": 1}
    config["data"]["init_args"] |= {"batch_size": 20}  # type: ignore[index]
    Path("fit.json").write_text(json.dumps(config))
    fit = ["fit", "--config", "fit.json", "--trainer.default_root_dir", "run"]
    plan = ["PoisonPlan", "--data.poison.trigger", "BadNet", "--data.poison.target", "square"]
    again = [*fit, "--ckpt_path", "last", "--trainer.max_epochs", "2", "--data.poison"]
    cli.run([*fit, "--data.poison", *plan, "--data.poison.count", "3"])
    before = {name: Path("run", name).read_bytes() for name in ("poison.json", "config.yaml", "last.ckpt")}
    with pytest.raises(UserMistake, match=r"other poison than that of its checkpoint: count 5 instead of 3; give"):
        cli.run([*again, *plan, "--data.poison.count", "5"])
    with pytest.raises(UserMistake, match=r"no plan instead of a plan"):
        cli.run([*again, "null"])
    assert {name: Path("run", name).read_bytes() for name in before} == before
    cli.run([*again, "run/poison.json"])
    assert torch.load("run/last.ckpt", weights_only=True)["epoch"] == 1
