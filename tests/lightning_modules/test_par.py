from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from planted import ENCODER, Planted, figures
from torch import nn
from torch.nn import functional
from training import quiet_trainer, recorded_losses

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.lightning_modules import PAR, PoisonedCLIP


def module(planted: Planted | None = None, **arguments: Any) -> PAR:
    torch.set_num_threads(1)
    seed_everything(0)
    start = {} if planted is None else {"init_from": str(planted.model)}
    return PAR(ENCODER, **({"lr": 2e-3, "recovery_share": 0.2, "weight_decay": 1e-4} | start | arguments))


def distances(clip: PAR, planted: Planted) -> list[float]:
    """Mean squared distance of the features of pictures and captions to the poisoned model's."""
    data = planted.data(poison=None)
    data.preprocessing = clip.preprocessing
    data.setup("fit")
    keys = data.some_keys(128, 0)
    images, tokens = clip.normalised(data.pictures(keys)), clip.preprocessing.tokenize(data.captions(keys))
    before = module(planted)
    with torch.no_grad():
        pairs = [(each.eval().encode_image(images), each.encode_text(tokens)) for each in (clip, before)]
    return [float((now - then).square().sum(dim=1).mean()) for now, then in zip(*pairs, strict=True)]


def test_it_keeps_the_contract() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "PAR"


def test_it_takes_the_backdoor_and_leaves_the_accuracy(planted: Planted, tmp_path: Path) -> None:
    before = figures(module(planted), planted, tmp_path)
    assert before[1] > 0.5
    clip = module(planted)
    quiet_trainer(tmp_path, max_epochs=4, limit_val_batches=0).fit(clip, planted.data(poison=None))
    accuracy, success = figures(clip, planted, tmp_path)
    assert success < 0.2
    assert accuracy > before[0] - 0.05


def test_both_towers_move_as_far_as_the_threshold_says(planted: Planted, tmp_path: Path) -> None:
    moved = []
    for threshold in (0.0, 0.5):
        clip = module(planted, threshold=threshold, perturbation_weight=2.0)
        quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(clip, planted.data(poison=None))
        moved.append(distances(clip, planted))
    plain, pushed = moved
    for near, far in zip(plain, pushed, strict=True):
        assert far > near + 0.1
        assert far < 1.0


def test_the_loss_is_the_contrastive_one_less_the_two_distances(planted: Planted, tmp_path: Path) -> None:
    clip, data = module(planted, perturbation_weight=0.7, frozen_batch_norm=True), planted.data(poison=None)
    losses = recorded_losses(clip)
    quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(clip, data)
    parts = {name: float(part) for name, part in clip.losses.items()}
    expected = parts["multimodal"] - 0.7 * (parts["image_distance"] + parts["text_distance"])
    assert losses[-1] == parts["loss"] == pytest.approx(expected, rel=1e-5)
    assert parts["image_distance"] > 0
    assert parts["text_distance"] > 0


def test_the_first_step_compares_with_the_model_itself_and_the_frozen_one_is_no_part_of_it() -> None:
    clip = module(frozen_batch_norm=True)
    names = set(clip.state_dict())
    clip.log_losses = lambda *_, **parts: vars(clip).update(parts)  # type: ignore[method-assign]
    images, tokens = torch.randn(4, 3, 32, 32), clip.preprocessing.tokenize(["a star", "a ring", "a cross", "no heart"])
    clip.train()
    clip.training_step({"key": list("abcd"), "image": images, "tokens": tokens}, 0).backward()
    assert float(vars(clip)["image_distance"]) == float(vars(clip)["text_distance"]) == 0.0
    assert set(clip.state_dict()) == names
    assert clip.encoder.logit_scale.grad is None
    assert not any(norm.training for norm in clip.encoder.modules() if isinstance(norm, nn.BatchNorm2d))


def test_the_rate_falls_to_that_of_the_recovery_in_the_middle_and_to_zero_at_the_end() -> None:
    clip = module(lr=1e-3, recovery_share=0.1, warmup_steps=2)
    trainer: Any = SimpleNamespace(estimated_stepping_batches=100, gradient_clip_val=None)
    clip.trainer = trainer
    schedule = clip.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    rates = [1e-3 * schedule(step) for step in (0, 1, 25, 50, 75, 100)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 0.55e-3, 1e-4, 0.5e-4, 0], abs=1e-9)


def test_a_resumed_run_is_pushed_from_the_poisoned_model_and_not_from_where_it_stood(
    planted: Planted, tmp_path: Path
) -> None:
    ends = []
    for stops in (True, False):
        clip, data = module(planted), planted.data(poison=None)
        run = quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0, limit_train_batches=4)
        path = None
        if stops:
            run.fit(clip, data)
            path = tmp_path / "middle.ckpt"
            run.save_checkpoint(path)
            clip, data = module(), planted.data(poison=None)
        run = quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=0, limit_train_batches=4)
        run.fit(clip, data, ckpt_path=path, weights_only=True if path else None)
        assert clip._poisoned is not None
        ends.append(clip._poisoned.state_dict())
    poisoned = module(planted).encoder.state_dict()
    for end in ends:
        for name, tensor in poisoned.items():
            assert torch.equal(end[name], tensor), name


def test_without_pushing_it_is_plain_finetuning_with_a_frozen_temperature() -> None:
    clip, plain = module(perturbation_weight=0.0), PoisonedCLIP(ENCODER)
    plain.encoder.load_state_dict(clip.encoder.state_dict())
    for each in (clip, plain):
        each.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
    images, tokens = torch.randn(3, 3, 32, 32), clip.preprocessing.tokenize(["a star", "a ring", "a cross"])
    batch: Any = {"key": list("abc"), "image": images, "tokens": tokens}
    assert torch.equal(clip.training_step(batch, 0), plain.training_step(batch, 0))
    assert functional.mse_loss(clip.encode_text(tokens), plain.encode_text(tokens)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 4.1}, r"model\.threshold is 4\.1: .* in \[0, 4\]"),
        ({"threshold": float("nan")}, r"model\.threshold is nan"),
        ({"perturbation_weight": -1.0}, r"model\.perturbation_weight is -1\.0, not at least 0"),
        ({"recovery_share": 0.0}, r"model\.recovery_share is 0\.0, not above 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**arguments)
