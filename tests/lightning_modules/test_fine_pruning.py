from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from planted import ENCODER, Planted, figures
from torch import Tensor, nn
from training import quiet_trainer

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.lightning_modules import FinePruning
from untrigger.lightning_modules.fine_pruning import _layers_of_units


def module(planted: Planted | None = None, **arguments: Any) -> FinePruning:
    torch.set_num_threads(1)
    seed_everything(0)
    start = {} if planted is None else {"init_from": str(planted.model)}
    return FinePruning(ENCODER, **({"lr": 1e-3, "pruning_pairs": 128, "step_share": 0.1} | start | arguments))


def shown(clip: FinePruning, planted: Planted) -> tuple[Tensor, Tensor]:
    """Some clean pairs, as pruning sees them."""
    data = planted.data(poison=None)
    data.preprocessing = clip.preprocessing
    data.setup("fit")
    keys = data.some_keys(128, 0)
    return data.pictures(keys), clip.preprocessing.tokenize(data.captions(keys))


def pruned(clip: FinePruning, planted: Planted) -> tuple[float, float]:
    """Prune a model, and return the loss before and after."""
    with torch.no_grad():
        return clip.eval().prune(*shown(clip, planted))


def count(clip: FinePruning) -> int:
    return sum(int(mask.sum()) for mask in clip.removed.values())


def test_it_keeps_the_contract(planted: Planted) -> None:
    clip = module(planted)
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "FinePruning"


def test_units_that_clean_pictures_leave_dormant_go_first(planted: Planted) -> None:
    clip = module(planted, layers=1, step_share=0.05, max_share=0.5, tolerance=1e9)
    (name,) = clip.layers
    norm: Any = clip.encoder.image_tower.get_submodule(name)
    dormant = [2, 5, 11]
    with torch.no_grad():
        norm.bias[dormant] = -1e3
        activity = clip.eval()._activity(shown(clip, planted)[0])[name]
    assert not activity[dormant].any()
    pruned(clip, planted)
    removed = clip.removed[name]
    assert removed[dormant].all()
    assert float(activity[removed].max()) <= float(activity[~removed].min())


def test_a_unit_s_activity_is_the_mean_of_what_a_relu_would_pass_on(planted: Planted) -> None:
    clip = module(planted, layers=1)
    (name,) = clip.layers
    outputs: list[Tensor] = []
    layer = clip.encoder.image_tower.get_submodule(name)
    layer.register_forward_hook(lambda *given: outputs.append(given[2].clone()))  # a ReLU follows in place
    pictures = shown(clip, planted)[0].repeat(3, 1, 1, 1)[:130]  # more than a block by two
    with torch.no_grad():
        found = clip.eval()._activity(pictures)[name]
    assert [len(output) for output in outputs] == [128, 2]
    torch.testing.assert_close(found, torch.cat(outputs).relu().mean(dim=(0, 2, 3)))


def test_the_loss_is_that_of_whole_blocks(planted: Planted) -> None:
    clip = module(planted).eval()
    pictures, tokens = (part.repeat(3, *[1] * (part.ndim - 1))[:130] for part in shown(clip, planted))
    with torch.no_grad():
        texts = clip.encode_text(tokens)
        assert clip._loss_of(pictures, texts) == clip._loss_of(pictures[:128], texts[:128])
        assert 0 < clip._loss_of(pictures[:7], texts[:7]) < clip._loss_of(pictures[:128], texts[:128])


def test_pruning_ends_before_the_loss_rises_beyond_the_tolerance(planted: Planted) -> None:
    removed = []
    for tolerance in (0.0, 0.05, 1e9):
        clip = module(planted, tolerance=tolerance, max_share=0.9)
        before, after = pruned(clip, planted)
        assert after <= (1 + tolerance) * before
        removed.append(count(clip))
    assert removed == sorted(removed)
    assert removed[0] < removed[2]
    total = sum(len(mask) for mask in clip.removed.values())
    assert removed[2] == pytest.approx(0.9 * total, abs=0.1 * total)


def test_removed_units_are_silent_and_stay_removed_in_the_finetuning(planted: Planted, tmp_path: Path) -> None:
    clip = module(planted, tolerance=1e9, max_share=0.5)
    quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(clip, planted.data(poison=None))
    assert count(clip) > 0
    for name, mask in clip.removed.items():
        layer: Any = clip.encoder.image_tower.get_submodule(name)
        assert not layer.weight[mask].any()
        assert not layer.bias[mask].any()
        assert layer.weight[~mask].all()


def test_it_weakens_the_backdoor_and_the_accuracy_comes_back(planted: Planted, tmp_path: Path) -> None:
    clip = module(planted)
    before = figures(clip, planted, tmp_path)
    quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(clip, planted.data(poison=None))
    after = figures(clip, planted, tmp_path)
    assert count(clip) > 0
    assert after[1] < before[1]
    assert after[0] > before[0] - 0.05


def test_a_resumed_run_prunes_no_further(planted: Planted, tmp_path: Path) -> None:
    clip = module(planted, tolerance=1e9, max_share=0.3)
    run = quiet_trainer(tmp_path, max_steps=2, limit_val_batches=0)
    run.fit(clip, planted.data(poison=None))
    run.save_checkpoint(tmp_path / "middle.ckpt")
    again = module(planted, tolerance=1e9, max_share=0.9)
    run = quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0)
    run.fit(again, planted.data(poison=None), ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    for name, mask in clip.removed.items():
        assert torch.equal(again.removed[name], mask)


def test_layers_of_units_are_batch_norms_and_what_widens() -> None:
    tower = nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.Linear(4, 16), nn.Linear(16, 4)),
        nn.Linear(4, 12),
    )
    assert [name for name, _ in _layers_of_units(tower)] == ["1", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, r"model\.layers is 0, not at least 1"),
        ({"step_share": 0.0}, r"model\.step_share is 0\.0, not above 0"),
        ({"tolerance": -0.1}, r"model\.tolerance is -0\.1, not at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**arguments)
