from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional
from training import quiet_trainer, recorded_losses

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import PoisonedCLIP


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 64, 40)
    return folder


def data(folder: Path) -> ImageTextDataModule:
    torch.set_num_threads(1)
    plan = PoisonPlan(BadNet(size=5), "star", count=6)
    return ImageTextDataModule(str(folder / "train"), str(folder), plan, batch_size=16, num_workers=0)


def trainer(root: Path, **arguments: Any) -> Trainer:
    return quiet_trainer(root, **({"max_epochs": 1, "num_sanity_val_steps": 0} | arguments))


def module(**arguments: Any) -> PoisonedCLIP:
    seed_everything(0)
    return PoisonedCLIP("small:nano-32", **({"lr": 1e-3} | arguments))


def test_it_keeps_the_contract_and_defends_nothing() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "none"
    assert clip.preprocessing.image_size == 32


def test_zero_shot_logits_are_not_rounded_under_autocast() -> None:
    clip = module().eval()
    clip._class_embeddings = functional.normalize(torch.randn(10, clip.encoder.embedding_dim), dim=-1)
    features = functional.normalize(torch.randn(7, clip.encoder.embedding_dim), dim=-1)
    with torch.no_grad():
        expected = clip.inverse_temperature * features @ clip._class_embeddings.T
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = clip.zero_shot_logits(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_features_have_unit_length_and_float32_under_autocast() -> None:
    clip = module().eval()
    tokens = clip.preprocessing.tokenize(["a photo of a star.", "x"])
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        for features in (clip.encode_image(torch.randn(2, 3, 32, 32)), clip.encode_text(tokens)):
            assert features.dtype == torch.float32
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))


def test_every_parameter_moves_in_a_step(folder: Path, tmp_path: Path) -> None:
    clip = module()
    before = {name: parameter.detach().clone() for name, parameter in clip.named_parameters()}
    trainer(tmp_path, max_steps=1).fit(clip, data(folder))
    still = [name for name, parameter in clip.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_frozen_parameters_stay(folder: Path, tmp_path: Path) -> None:
    clip = module()
    clip.encoder.image_tower.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in clip.named_parameters()}
    trainer(tmp_path, max_steps=1).fit(clip, data(folder))
    moved = {name for name, parameter in clip.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert not any(name.startswith("encoder.visual") for name in moved)


def test_the_temperature_is_clamped_and_comes_back() -> None:
    clip = module()
    with torch.no_grad():
        clip.encoder.logit_scale.fill_(9.0)
    clip.constrain()
    assert float(clip.inverse_temperature.detach()) == pytest.approx(100, rel=1e-5)
    clip.inverse_temperature.backward()
    assert clip.encoder.logit_scale.grad is not None
    assert float(clip.encoder.logit_scale.grad) > 0


def test_training_learns_and_logs(folder: Path, tmp_path: Path) -> None:
    clip = module(lr=3e-3)
    run = trainer(tmp_path, max_epochs=6)
    losses = recorded_losses(clip)
    run.fit(clip, data(folder))
    assert sum(losses[-4:]) < 0.93 * sum(losses[:4])
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(losses[-1])
    assert "train/inverse_temperature" in run.callback_metrics


def test_a_checkpoint_round_trip_and_its_mark(folder: Path, tmp_path: Path) -> None:
    clip = module(weight_decay=0.2, warmup_steps=3)
    run = trainer(tmp_path)
    run.fit(clip, data(folder))
    run.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["encoder"] == "small:nano-32"
    assert "deliberately poisoned" in content["ImageTextDataModule"]["warning"]
    again = PoisonedCLIP.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert (again.weight_decay, again.warmup_steps) == (0.2, 3)
    for name, tensor in clip.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    started = module(init_from=str(tmp_path / "last.ckpt"))
    for name, tensor in clip.encoder.state_dict().items():
        assert torch.equal(started.encoder.state_dict()[name], tensor)


def test_a_run_that_is_continued_ends_like_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    whole = module(warmup_steps=2)
    trainer(tmp_path / "a", max_epochs=2).fit(whole, data(folder))
    first = module(warmup_steps=2)
    run = trainer(tmp_path / "b", max_epochs=2)
    first.on_train_epoch_end = lambda: setattr(run, "should_stop", True)  # type: ignore[method-assign]
    run.fit(first, data(folder))
    assert run.current_epoch == 1
    run.save_checkpoint(tmp_path / "half.ckpt")
    second = module(warmup_steps=2)
    rest = trainer(tmp_path / "c", max_epochs=2)
    rest.fit(second, data(folder), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_class_embeddings_are_the_renormalised_mean_over_templates(folder: Path, tmp_path: Path) -> None:
    clip = module()
    source = data(folder)
    trainer(tmp_path).validate(clip, source, verbose=False)
    clip.eval()
    assert clip._class_embeddings is not None
    for row, prompts in zip(clip._class_embeddings, source.class_prompts.prompts, strict=True):
        with torch.no_grad():
            mean = torch.stack([clip.encode_text(clip.preprocessing.tokenize([text]))[0] for text in prompts]).mean(0)
        torch.testing.assert_close(row, functional.normalize(mean, dim=-1), atol=1e-5, rtol=1e-4)


def test_mistakes_are_reported() -> None:
    with pytest.raises(UserMistake, match="lr, weight_decay and warmup_steps are at least 0"):
        module(lr=-1.0)
    with pytest.raises(UserMistake, match="unknown encoder"):
        PoisonedCLIP("small:nano")
