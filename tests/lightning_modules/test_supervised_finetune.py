from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional
from training import quiet_trainer

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, ResultsWriter
from untrigger.contracts import CLIPModule, HeadModule, UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, LabelledDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import CleanCLIP, SupervisedFinetune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 160, 40)
    return folder


def module(**arguments: Any) -> SupervisedFinetune:
    torch.set_num_threads(1)
    seed_everything(0)
    return SupervisedFinetune("small:nano-32", **({"lr": 1e-3, "num_classes": 10} | arguments))


def data(folder: Path) -> LabelledDataModule:
    plan = PoisonPlan(BadNet(size=5), "star", count=6)
    return LabelledDataModule(
        str(folder / "train"), str(folder), attack=plan, label_field="label", batch_size=16, num_workers=0
    )


def trainer(root: Path, **arguments: Any) -> Trainer:
    return quiet_trainer(root, **({"max_epochs": 1, "num_sanity_val_steps": 0} | arguments))


def test_it_keeps_the_contracts() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert isinstance(clip, HeadModule)
    assert (clip.defence, clip.head_defence) == ("SupervisedFinetune", "SupervisedFinetune-head")


def test_image_tower_and_head_move_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    clip = module(weight_decay=0.5)
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    trainer(tmp_path, max_steps=2, limit_val_batches=0).fit(clip, data(folder))
    moved = {name for name, tensor in clip.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = {name for name, parameter in clip.named_parameters() if parameter.requires_grad}
    assert trained <= moved
    assert {name.split(".")[0] if name.startswith("head") else ".".join(name.split(".")[:2]) for name in moved} == {
        "head",
        "encoder.visual",
    }


def test_the_loss_is_the_cross_entropy_of_the_head_on_features_as_they_are() -> None:
    clip = module()
    images, label = torch.randn(6, 3, 32, 32), torch.tensor([0, 9, 3, 3, 1, 7])
    clip.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    loss = clip.training_step({"key": list("abcdef"), "image": images, "label": label}, 0)
    logits = clip.encoder.encode_image(images) @ clip.head.weight.T + clip.head.bias
    expected = -logits.log_softmax(dim=1)[torch.arange(6), label].mean()
    torch.testing.assert_close(loss, expected)


def test_the_head_learns(folder: Path, tmp_path: Path) -> None:
    clip = module(lr=5e-3)
    run = trainer(tmp_path, max_epochs=15, check_val_every_n_epoch=15)
    run.fit(clip, data(folder))
    # Ten classes at the start; the loss of a guess is 2.3.
    assert float(run.callback_metrics["train/loss"]) < 1.0


def test_zero_shot_and_head_are_measured_side_by_side(folder: Path, tmp_path: Path) -> None:
    clip, source = module(), data(folder)
    run = trainer(tmp_path, callbacks=[CleanAccuracy(), AttackSuccessRate(), ResultsWriter()])
    run.validate(clip, source, verbose=False)
    clip.eval()
    (batch,) = [source.on_after_batch_transfer(batch, 0) for batch in source.val_dataloader()]  # type: ignore[union-attr]
    label, others = batch["label"], batch["label"] != 8  # "star"
    expected = {}
    with torch.no_grad():
        for kind in ("", "head_"):
            found = {}
            for name, images in {"clean": batch["image"], "triggered": batch["triggered"]["BadNet"]}.items():
                features = clip.encoder.encode_image(images)
                text = clip._class_embeddings
                assert text is not None
                logits = clip.head(features) if kind else functional.normalize(features, dim=-1) @ text.T
                found[name] = logits.argmax(dim=1)
            expected[f"val/{kind}clean_accuracy"] = float((found["clean"] == label).float().mean())
            expected[f"val/{kind}attack_success_rate"] = float((found["triggered"][others] == 8).float().mean())
            expected[f"val/{kind}clean_target_rate"] = float((found["clean"][others] == 8).float().mean())
            right = found["triggered"] == label
            expected[f"val/{kind}triggered_accuracy"] = float(right.float().mean())
            expected[f"val/{kind}non_target_triggered_accuracy"] = float(right[others].float().mean())
    assert {name: float(value) for name, value in run.callback_metrics.items()} == pytest.approx(expected)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["defence"] for row in rows] == ["SupervisedFinetune", "SupervisedFinetune-head"]
    for row, kind in zip(rows, ("", "head_"), strict=True):
        for measure in ("clean_accuracy", "attack_success_rate", "clean_target_rate", "triggered_accuracy"):
            assert float(row[measure]) == pytest.approx(expected[f"val/{kind}{measure}"], abs=1e-5)


def test_a_checkpoint_round_trip_and_its_encoder_in_another_module(folder: Path, tmp_path: Path) -> None:
    clip = module()
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(clip, data(folder))
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = SupervisedFinetune.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for name, tensor in clip.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    other = CleanCLIP("small:nano-32", init_from=str(tmp_path / "last.ckpt"))
    for name, tensor in clip.encoder.state_dict().items():
        assert torch.equal(other.encoder.state_dict()[name], tensor)


def test_mistakes_are_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="at least two classes"):
        module(num_classes=1)
    with pytest.raises(UserMistake, match=r"model\.num_classes is 7, but data\.zero_shot has 10 classes"):
        trainer(tmp_path).fit(module(num_classes=7), data(folder))
    pairs = ImageTextDataModule(str(folder / "train"), str(folder), batch_size=16, num_workers=0)
    with pytest.raises(UserMistake, match="use LabelledDataModule"):
        trainer(tmp_path).fit(module(), pairs)
