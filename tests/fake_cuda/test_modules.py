"""Every module's steps on the device: nothing lies on the wrong one, and nothing waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import GPU, Bench
from torch import Tensor

from untrigger import lightning_modules
from untrigger.datamodules import (
    EDA,
    BadNet,
    ImageTextDataModule,
    LabelledDataModule,
    PoisonPlan,
    TransformView,
)
from untrigger.lightning_modules import (
    ABL,
    DECREE,
    PAR,
    RVPT,
    TBAR,
    UBT,
    BadCLIP,
    BaseCLIPModule,
    CleanCLIP,
    FinePruning,
    InverTune,
    LinearProbe,
    LocalDensityCLIP,
    PairDetectors,
    PhasedCLIPModule,
    PoisonedCLIP,
    RoCLIP,
    SafeCLIP,
    SupervisedFinetune,
    TargetNaming,
)

NANO = "small:nano-32"
MODULES: dict[str, Callable[[], BaseCLIPModule]] = {
    "PoisonedCLIP": lambda: PoisonedCLIP(NANO),
    "PoisonedCLIP, micro-batches": lambda: PoisonedCLIP(NANO, micro_batch_size=4, channels_last=True),
    "PoisonedCLIP, RN50": lambda: PoisonedCLIP("open_clip:RN50"),
    "PoisonedCLIP, ViT-B-32": lambda: PoisonedCLIP("open_clip:ViT-B-32", channels_last=True),
    "CleanCLIP": lambda: CleanCLIP(NANO),
    "CleanCLIP, joint": lambda: CleanCLIP(NANO, joint_batch_norm=True),
    "PAR": lambda: PAR(NANO),
    "ABL": lambda: ABL(NANO),
    "TBAR": lambda: TBAR(NANO, given=__file__),  # any lines are keys
    "RoCLIP": lambda: RoCLIP(NANO, match_every=1, pool_size=32),
    "SafeCLIP": lambda: SafeCLIP(NANO, pool_size=32),
    "PairDetectors": lambda: PairDetectors(NANO),
    "FinePruning": lambda: FinePruning(NANO, pruning_pairs=16),
    "LinearProbe": lambda: LinearProbe(NANO, num_classes=10),
    "SupervisedFinetune": lambda: SupervisedFinetune(NANO, num_classes=10),
    "RVPT": lambda: RVPT("open_clip:ViT-B-32", shots=None),
    "BadCLIP": lambda: BadCLIP(NANO, target="heart"),
    "DECREE": lambda: DECREE(NANO),
    "TargetNaming": lambda: TargetNaming(NANO),
    "InverTune": lambda: InverTune(NANO),
    "LocalDensityCLIP": lambda: LocalDensityCLIP(NANO, neighbours=4, reference_size=32),
    "UBT": lambda: UBT(NANO),
}
PHASED = ("UBT", "ABL", "TBAR", "SafeCLIP", "PairDetectors", "TargetNaming", "InverTune")
TRAINED = [name for name in MODULES if name not in (*PHASED, "LocalDensityCLIP")]


def data_for(name: str, folder: Path) -> Any:
    arguments: dict[str, Any] = {"zero_shot": str(folder), "batch_size": 8, "eval_batch_size": 16, "num_workers": 0}
    plans = [PoisonPlan(BadNet(), "heart", count=4), PoisonPlan(BadNet(size=6), "heart", count=4)]
    if name in ("SupervisedFinetune", "LinearProbe", "RVPT"):
        return LabelledDataModule(str(folder / "train"), attack=plans, label_field="label", **arguments)
    if name.startswith(("CleanCLIP", "SafeCLIP")):
        arguments |= {"image_view": TransformView(), "text_view": EDA()}
    return ImageTextDataModule(str(folder / "train"), poison=plans, **arguments)


def on_the_device(value: Any) -> bool:
    if isinstance(value, dict):
        return all(on_the_device(part) for part in value.values())
    return not isinstance(value, Tensor) or value.device == GPU


def test_no_module_is_left_out() -> None:
    exported = (getattr(lightning_modules, name) for name in lightning_modules.__all__)
    modules = {kind.__name__ for kind in exported if isinstance(kind, type) and issubclass(kind, BaseCLIPModule)}
    named = {name.partition(",")[0] for name in MODULES}
    assert modules - {BaseCLIPModule.__name__, PhasedCLIPModule.__name__} == named


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # PAR keeps a copy of the encoder
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step(name: str, bench: Bench, folder: Path) -> None:
    module, data = MODULES[name](), data_for(name, folder)
    bench.attach(module, data)
    module.train()
    module.on_train_start()
    batch = bench.batch(data.train_dataloader())
    assert on_the_device(batch)
    with bench.steps():
        loss: Any = module.training_step(batch, 0)  # type: ignore[operator]
        module.constrain()
    assert (loss.device, loss.requires_grad, tuple(loss.shape)) == (GPU, True, ())
    assert on_the_device(bench.logged)
    assert "train/loss" in bench.logged


@pytest.mark.parametrize("name", MODULES)
def test_a_validation_step(name: str, bench: Bench, folder: Path) -> None:
    module, data = MODULES[name](), data_for(name, folder)
    bench.attach(module, data, "validate")
    module.eval()
    module.on_validation_epoch_start()
    batch = bench.batch(data.val_dataloader())
    with torch.no_grad(), bench.steps():
        outputs: Any = module.validation_step(batch, 0)
    assert on_the_device(outputs)
    assert len(outputs["logits"]) == 16


@pytest.mark.parametrize("name", ["PoisonedCLIP", "CleanCLIP", "LocalDensityCLIP", "UBT"])
def test_a_predict_step(name: str, bench: Bench, folder: Path) -> None:
    module, data = MODULES[name](), data_for(name, folder)
    bench.attach(module, data, "predict")
    module.eval()
    module.on_predict_start()
    batch = bench.batch(data.predict_dataloader())
    with torch.no_grad(), bench.steps():
        outputs: Any = module.predict_step(batch, 0)
    assert on_the_device({kind: value for kind, value in outputs.items() if kind != "key"})
