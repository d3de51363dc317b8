from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn
from training import quiet_trainer

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy
from untrigger.contracts import HeadModule, UserMistake
from untrigger.datamodules import BadNet, LabelledDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import LinearProbe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 96, 40)
    return folder


def module(**arguments: Any) -> LinearProbe:
    torch.set_num_threads(1)
    seed_everything(0)
    return LinearProbe("small:nano-32", **({"lr": 0.05, "num_classes": 10} | arguments))


def data(folder: Path) -> LabelledDataModule:
    plan = PoisonPlan(BadNet(size=5), "star", count=6)
    shards = str(folder / "train")
    return LabelledDataModule(shards, str(folder), attack=plan, label_field="label", batch_size=16, num_workers=0)


def test_it_keeps_the_contract_of_a_head() -> None:
    clip = module()
    assert isinstance(clip, HeadModule)
    assert (clip.defence, clip.head_defence) == ("LinearProbe", "LinearProbe-head")


def test_the_head_learns_and_nothing_else_changes(folder: Path, tmp_path: Path) -> None:
    clip = module()
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    figures = []
    for _ in range(2):
        run = quiet_trainer(tmp_path, max_epochs=8, callbacks=[CleanAccuracy(), AttackSuccessRate()])
        run.validate(clip, data(folder), verbose=False)
        figures.append({name: float(value) for name, value in run.callback_metrics.items()})
        if len(figures) == 1:
            quiet_trainer(tmp_path, max_epochs=8, limit_val_batches=0).fit(clip, data(folder))
    assert {name for name, tensor in clip.state_dict().items() if not torch.equal(tensor, before[name])} == {
        "head.weight",
        "head.bias",
    }
    first, last = figures
    assert last["val/head_clean_accuracy"] > first["val/head_clean_accuracy"]
    for name, value in first.items():
        assert name.startswith("val/head_") or last[name] == value, name


def test_the_features_are_those_of_an_evaluation() -> None:
    clip = module()
    clip.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    clip.train()
    loss = clip.training_step({"key": ["a", "b"], "image": torch.randn(2, 3, 32, 32), "label": torch.tensor([0, 1])}, 0)
    assert not any(part.training for part in clip.encoder.modules() if isinstance(part, nn.BatchNorm2d))
    loss.backward()
    assert clip.head.weight.grad is not None
    assert all(part.grad is None for part in clip.encoder.parameters())


def test_a_head_of_one_class_is_refused() -> None:
    with pytest.raises(UserMistake, match="at least two classes"):
        module(num_classes=1)
