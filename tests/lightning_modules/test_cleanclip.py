from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from training import quiet_trainer

from untrigger.contracts import CLIPModule, HeadModule, ImageTextBatch, UserMistake
from untrigger.datamodules import EDA, ImageTextDataModule, LabelledDataModule, TransformView
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import CleanCLIP, PoisonedCLIP
from untrigger.lightning_modules.losses import ContrastiveLoss, SelfSupervisedLoss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 64, 20)
    return folder


def module(kind: type[LightningModule] = CleanCLIP, **arguments: Any) -> Any:
    torch.set_num_threads(1)
    seed_everything(0)
    return kind("small:nano-32", **({"lr": 1e-3} | arguments))


def data(folder: Path, **arguments: Any) -> ImageTextDataModule:
    views: dict[str, Any] = {"image_view": TransformView(), "text_view": EDA()}
    return ImageTextDataModule(str(folder / "train"), batch_size=16, num_workers=0, **(views | arguments))


def trainer(root: Path, **arguments: Any) -> Trainer:
    return quiet_trainer(root, **({"max_steps": 1, "limit_val_batches": 0} | arguments))


def batch(clip: CleanCLIP) -> ImageTextBatch:
    generator = torch.Generator().manual_seed(1)
    tokenize = clip.preprocessing.tokenize
    return {
        "key": ["a", "b", "c", "d"],
        "image": torch.randn(4, 3, 32, 32, generator=generator),
        "tokens": tokenize(["a star", "a red ring on a table", "the cross", "no heart"]),
        "image_view": 3 + 2 * torch.randn(4, 3, 32, 32, generator=generator),
        "tokens_view": tokenize(["star a", "a red band on a table", "cross", "no heart here"]),
    }


def step(clip: CleanCLIP, given: ImageTextBatch) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch and what is logged."""
    logged: dict[str, float] = {}
    clip.log = lambda name, value, **_: logged.update({name: float(value)})  # type: ignore[method-assign]
    clip.log_dict = lambda values, **_: logged.update({n: float(v) for n, v in values.items()})  # type: ignore[method-assign]
    return clip.training_step(given, 0).detach(), logged


def test_it_keeps_the_contract() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert not isinstance(clip, HeadModule)
    assert clip.defence == "CleanCLIP"


@pytest.mark.parametrize(("multimodal", "own"), [(1.0, 1.0), (0.5, 4.0), (0.0, 2.0)])
def test_the_loss_is_the_weighted_sum_of_its_parts(multimodal: float, own: float) -> None:
    clip = module(multimodal_weight=multimodal, self_supervised_weight=own)
    given = batch(clip)
    with torch.no_grad():
        images, views = clip.encode_image(given["image"]), clip.encode_image(given["image_view"])
        texts, text_views = clip.encode_text(given["tokens"]), clip.encode_text(given["tokens_view"])
        scale = clip.inverse_temperature
        expected = {
            "train/multimodal": float(ContrastiveLoss()(images, texts, scale)),
            "train/image_self_supervised": float(SelfSupervisedLoss()(images, views, scale)),
            "train/text_self_supervised": float(SelfSupervisedLoss()(texts, text_views, scale)),
        }
    assert len(set(expected.values())) == 3
    total = multimodal * expected["train/multimodal"]
    total += own * (expected["train/image_self_supervised"] + expected["train/text_self_supervised"]) / 2
    loss, logged = step(clip, given)
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert logged == pytest.approx(
        expected | {"train/loss": total, "train/inverse_temperature": float(scale)}, rel=1e-5
    )


class _NoTouching(dict[str, Any]):
    """A batch whose views may not be looked at."""

    def __getitem__(self, name: str) -> Any:
        assert "view" not in name
        return super().__getitem__(name)


def test_without_self_supervision_it_is_plain_finetuning_and_leaves_the_views_alone(tmp_path: Path) -> None:
    plain, clip = module(PoisonedCLIP), module(self_supervised_weight=0.0)
    given = batch(clip)
    loss, logged = step(clip, _NoTouching(given))  # type: ignore[arg-type]
    assert torch.equal(loss, plain.loss(*plain(given), plain.inverse_temperature))
    assert set(logged) == {"train/loss", "train/multimodal", "train/inverse_temperature"}
    for name, tensor in plain.state_dict().items():  # batch norm has seen the same
        assert torch.equal(clip.state_dict()[name], tensor), name


def test_a_run_of_plain_finetuning_ends_where_contrastive_training_does(folder: Path, tmp_path: Path) -> None:
    plain, clip = module(PoisonedCLIP), module(self_supervised_weight=0.0)
    trainer(tmp_path, max_steps=3).fit(plain, data(folder, image_view=None, text_view=None))
    trainer(tmp_path, max_steps=3).fit(clip, data(folder, image_view=None, text_view=None))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(clip.state_dict()[name], tensor), name


def _norms(clip: CleanCLIP) -> list[nn.BatchNorm2d]:
    return [part for part in clip.encoder.modules() if isinstance(part, nn.BatchNorm2d)]


def test_batch_norm_sees_originals_and_views_apart_and_keeps_the_originals() -> None:
    clip, alone = module(), module()
    given = batch(clip)
    sizes: list[int] = []
    _norms(clip)[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    step(clip, given)
    assert sizes == [4, 4]
    alone.encode_image(given["image"])
    for found, expected in zip(_norms(clip), _norms(alone), strict=True):
        assert torch.equal(found.running_mean, expected.running_mean)
        assert torch.equal(found.running_var, expected.running_var)


def test_batch_norm_sees_both_at_once_when_asked() -> None:
    clip, together = module(joint_batch_norm=True), module()
    given = batch(clip)
    loss, _ = step(clip, given)
    separate, _ = step(module(), given)
    assert float(loss) != pytest.approx(float(separate), rel=1e-3)
    together.encode_image(torch.cat([given["image"], given["image_view"]]))
    for found, expected in zip(_norms(clip), _norms(together), strict=True):
        assert torch.equal(found.running_mean, expected.running_mean)


def test_every_parameter_moves_and_the_parts_are_logged(folder: Path, tmp_path: Path) -> None:
    clip = module()
    before = {name: parameter.detach().clone() for name, parameter in clip.named_parameters()}
    run = trainer(tmp_path)
    run.fit(clip, data(folder))
    assert [name for name, parameter in clip.named_parameters() if torch.equal(parameter, before[name])] == []
    parts = {"loss", "multimodal", "image_self_supervised", "text_self_supervised", "inverse_temperature"}
    assert {f"train/{part}" for part in parts} <= set(run.callback_metrics)


class _Started(Callback):
    yes = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.yes = True


@pytest.mark.parametrize(
    ("views", "named"),
    [
        ({"image_view": None}, "needs data.image_view,"),
        ({"text_view": None}, "needs data.text_view,"),
        ({"image_view": None, "text_view": None}, "needs data.image_view and data.text_view,"),
    ],
)
def test_missing_views_are_reported_before_training(
    views: dict[str, Any], named: str, folder: Path, tmp_path: Path
) -> None:
    started = _Started()
    with pytest.raises(UserMistake, match=named) as error:
        trainer(tmp_path, callbacks=[started]).fit(module(), data(folder, **views))
    assert "\n" not in str(error.value)
    assert not started.yes


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(PoisonedCLIP, {}), (CleanCLIP, {}), (CleanCLIP, {"self_supervised_weight": 0.0})],
    ids=["poisoned", "cleanclip", "plain finetuning"],
)
def test_pictures_without_captions_are_reported_before_training(
    kind: type[LightningModule], arguments: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    labelled = LabelledDataModule(str(folder / "train"), str(folder), batch_size=16, num_workers=0, label_field="label")
    started = _Started()
    with pytest.raises(UserMistake, match=f"{kind.__name__} needs pictures with captions: use ImageTextDataModule"):
        trainer(tmp_path, callbacks=[started]).fit(module(kind, **arguments), labelled)
    assert not started.yes


def test_a_batch_without_views_is_reported_whatever_made_it() -> None:
    clip = module()
    given = batch(clip)
    del given["tokens_view"]
    with pytest.raises(UserMistake, match=r"needs data\.text_view,"):
        step(clip, given)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"multimodal_weight": -1.0}, "at least 0"),
        ({"self_supervised_weight": float("nan")}, "at least 0"),
        ({"multimodal_weight": 0.0, "self_supervised_weight": 0.0}, "both 0"),
    ],
)
def test_weights_that_make_no_loss_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**weights)


def test_a_checkpoint_round_trip_keeps_the_weights_of_the_losses(folder: Path, tmp_path: Path) -> None:
    clip = module(multimodal_weight=0.5, self_supervised_weight=2.0, joint_batch_norm=True)
    run = trainer(tmp_path)
    run.fit(clip, data(folder))
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = CleanCLIP.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert (again.multimodal_weight, again.self_supervised_weight, again.joint_batch_norm) == (0.5, 2.0, True)
    for name, tensor in clip.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
