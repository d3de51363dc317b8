"""Every callback that meets tensors of the device; what is logged, written or drawn of them may wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import GPU, Bench, Waited
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torch import Tensor

from untrigger import callbacks
from untrigger.callbacks import (
    AttackSuccessRate,
    CleanAccuracy,
    EvaluationSample,
    FiniteLoss,
    Retrieval,
    SamplesPerSecond,
    SimilarityWriter,
    SingleImageSuccess,
    TriggerGallery,
)
from untrigger.datamodules import (
    BadNet,
    ConceptConfusionPlan,
    GivenPicture,
    ImageTextDataModule,
    NamedConcept,
    PoisonPlan,
    SingleImagePlan,
)
from untrigger.lightning_modules import PoisonedCLIP, SupervisedFinetune

MET_HERE = {
    "AttackSuccessRate",
    "CleanAccuracy",
    "EvaluationSample",
    "FiniteLoss",
    "Retrieval",
    "SamplesPerSecond",
    "SimilarityWriter",
    "SingleImageSuccess",
    "TriggerGallery",
}
MEET_NO_TENSORS = {
    "BackdoorDetection",
    "CompactProgressBar",
    "EndTogether",
    "LastCheckpoint",
    "RandomStates",
    "ResultsWriter",
    "ResumedSchedule",
    "ResumedSettings",
    "SuspectsWriter",
    "ZeroShotMeasure",
}
"""Findings are on the host by then; `test_ubt.py` sees to that."""


def data_in(folder: Path, **arguments: Any) -> ImageTextDataModule:
    sizes = {"batch_size": 8, "eval_batch_size": 16, "num_workers": 0}
    plans = [PoisonPlan(BadNet(), "heart", count=4), PoisonPlan(BadNet(size=6), "star", count=4)]
    shown: dict[str, Any] = {"poison": plans, "zero_shot": str(folder)} | sizes
    return ImageTextDataModule(str(folder / "train"), **(shown | arguments))


@torch.no_grad()
def evaluate(bench: Bench, module: Any, data: ImageTextDataModule, *measures: Callback) -> None:
    """A validation of a batch: counting it does not wait, and what is logged lies on the device."""
    bench.attach(module, data, "validate")
    module.eval()
    module.on_validation_epoch_start()
    for measure in measures:
        measure.setup(bench.trainer, module, "validate")
        measure.on_validation_epoch_start(bench.trainer, module)
    batch = bench.batch(data.val_dataloader())
    for measure in measures:
        measure.on_validation_batch_start(bench.trainer, module, batch, 0)
    with bench.steps():
        outputs = module.validation_step(batch, 0)
        for measure in measures:
            measure.on_validation_batch_end(bench.trainer, module, outputs, batch, 0)
    for measure in measures:
        measure.on_validation_epoch_end(bench.trainer, module)


def test_no_callback_is_left_out() -> None:
    exported = (getattr(callbacks, name) for name in callbacks.__all__)
    known = {kind.__name__ for kind in exported if isinstance(kind, type) and issubclass(kind, Callback)}
    assert known == MET_HERE | MEET_NO_TENSORS


@pytest.mark.parametrize("headed", [False, True], ids=["zero-shot", "with a head"])
def test_measures(headed: bool, bench: Bench, folder: Path) -> None:
    module = SupervisedFinetune("small:nano-32", num_classes=10) if headed else PoisonedCLIP("small:nano-32")
    evaluate(bench, module, data_in(folder), CleanAccuracy(), AttackSuccessRate())
    names = {"val/clean_accuracy", "val/attack_success_rate", "val/attack_success_rate/BadNet-2"}
    assert names <= set(bench.logged)
    assert {value.device for value in bench.logged.values()} == {GPU}
    assert ("val/head_clean_accuracy" in bench.logged) == headed


def test_success_where_pictures_trigger_by_themselves(bench: Bench, folder: Path) -> None:
    plan = ConceptConfusionPlan(NamedConcept(["star"]), target="heart", count=4)
    evaluate(bench, PoisonedCLIP("small:nano-32"), data_in(folder, poison=plan), AttackSuccessRate())
    assert {"val/attack_success_rate", "val/clean_target_rate", "val/triggered_accuracy"} <= set(bench.logged)
    assert {value.device for value in bench.logged.values()} == {GPU}


def test_the_sample_is_read_at_the_end(bench: Bench, folder: Path) -> None:
    sample = EvaluationSample(8)
    evaluate(bench, PoisonedCLIP("small:nano-32"), data_in(folder), sample)
    bench.trainer.state.fn = TrainerFn.VALIDATING
    sample.on_validation_end(bench.trainer, bench.trainer.lightning_module)
    assert Path(bench.trainer.default_root_dir, "evaluation.npz").exists()


def test_the_gallery(bench: Bench, folder: Path) -> None:
    evaluate(bench, PoisonedCLIP("small:nano-32"), data_in(folder), TriggerGallery(4))
    assert Path(bench.trainer.default_root_dir, "gallery.png").exists()


def test_single_pictures(bench: Bench, folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / "given.png")
    plans: Any = [
        PoisonPlan(BadNet(), "heart", count=4),
        SingleImagePlan(GivenPicture([str(tmp_path / "given.png")]), "star", count=2),
    ]
    evaluate(bench, PoisonedCLIP("small:nano-32"), data_in(folder, poison=plans), SingleImageSuccess())
    assert bench.logged["val/attack_success_rate/SingleImage"].device == GPU


def test_retrieval(bench: Bench, folder: Path) -> None:
    held_out = data_in(folder, held_out=str(folder / "train"))
    evaluate(bench, PoisonedCLIP("small:nano-32"), held_out, Retrieval())
    assert {"val/image_to_text_recall_at_1", "val/target_hit_at_5"} <= set(bench.logged)


def test_a_loss_is_looked_at_when_it_is_time_to(bench: Bench, folder: Path) -> None:
    module, data, finite, speed = PoisonedCLIP("small:nano-32"), data_in(folder), FiniteLoss(), SamplesPerSecond()
    bench.attach(module, data)
    batch: Any = bench.batch(data.train_dataloader())
    bench.trainer.log_every_n_steps = 2  # type: ignore[attr-defined]
    with bench.steps():
        module.training_step(batch, 0)
        for watch in (finite, speed):
            watch.on_train_batch_end(bench.trainer, module, None, batch, 0)
        with pytest.raises(Waited):
            finite.on_train_batch_end(bench.trainer, module, None, batch, 1)
    finite.on_train_batch_end(bench.trainer, module, None, batch, 1)
    finite.on_save_checkpoint(bench.trainer, module, {})


def test_similarities_are_written(bench: Bench, folder: Path) -> None:
    module, data, writer = PoisonedCLIP("small:nano-32"), data_in(folder), SimilarityWriter()
    bench.attach(module, data, "predict")
    batch: Any = bench.batch(data.predict_dataloader())
    writer.on_predict_start(bench.trainer, module)
    with torch.no_grad(), bench.steps():
        outputs = module.predict_step(batch, 0)
    assert isinstance(outputs["similarity"], Tensor)
    writer.on_predict_batch_end(bench.trainer, module, outputs, batch, 0)
    writer.on_predict_end(bench.trainer, module)
    rows = Path(bench.trainer.default_root_dir, "similarities.csv").read_text().splitlines()
    assert len(rows) == 1 + len(batch["key"])
