from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from planted import ENCODER, TARGET, Planted, SaveInEachPhase, figures, phased_trainer, same, weights
from safetensors.torch import load_file
from torchmetrics.functional.image import structural_similarity_index_measure

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.lightning_modules import InversionOptions, InverTune, PatchOptions, TuningOptions

PATCH = PatchOptions(share=0.1, epochs=2, steps=20, counted_pairs=200)
INVERSION = InversionOptions(epochs=3, steps=30, lr=0.03, mask_weight=0.01)
TUNING = TuningOptions(reference_pairs=200, epochs=3, steps=30, preservation_weight=0.5)


def module(planted: Planted, **arguments: Any) -> InverTune:
    torch.set_num_threads(1)
    seed_everything(0)
    options: dict[str, Any] = {"patch": PATCH, "inversion": INVERSION, "tuning": TUNING, "lr": 1e-3}
    return InverTune(ENCODER, init_from=str(planted.model), **(options | arguments))


@pytest.fixture(scope="module")
def run(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[InverTune, Path]:
    """A run on clean pairs."""
    root = tmp_path_factory.mktemp("invertune")
    clip = module(planted)
    phased_trainer(root, SaveInEachPhase(root)).fit(clip, planted.data(poison=None))
    return clip, root


def test_the_backdoor_goes_and_the_model_stays(run: tuple[InverTune, Path], planted: Planted, tmp_path: Path) -> None:
    clip, _ = run
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "InverTune"
    assert clip.target == TARGET
    before = figures(module(planted), planted, tmp_path)
    accuracy, success = figures(clip, planted, tmp_path)
    assert success < 0.1 < 0.6 < before[1]
    assert accuracy > before[0] - 0.1
    arrived, left = clip.arrived
    assert left < 0.1 < 0.9 < arrived


def test_the_image_tower_alone_is_tuned_and_batch_norm_keeps_its_statistics(
    run: tuple[InverTune, Path], planted: Planted
) -> None:
    kept = same(weights(run[0]), weights(module(planted)))  # type: ignore[arg-type]
    names = set(weights(run[0]))  # type: ignore[arg-type]
    still = {name for name in names if not name.startswith("visual.") or "running_" in name or "num_batches" in name}
    assert still <= kept
    assert not {name for name in names - still if name in kept}


def test_the_trigger_is_left_in_the_run_folder(run: tuple[InverTune, Path], planted: Planted) -> None:
    clip, root = run
    saved = load_file(root / "trigger.safetensors")
    assert clip.trigger is not None
    for name, part in zip(("mask", "pattern"), clip.trigger, strict=True):
        assert torch.equal(saved[name], part)
        assert part.shape == (3, 32, 32)
        assert 0 <= float(part.min()) < float(part.max()) <= 1
    assert float(saved["mask"].mean()) < 0.5
    assert (root / "trigger.png").exists()
    assert (root / "target_naming.json").exists()


def test_neurons_are_some_of_the_layers_that_change_most(run: tuple[InverTune, Path]) -> None:
    clip, _ = run
    assert set(clip.neurons) == {"stages.3", "stages.7", "stages.12"}
    for mask in clip.neurons.values():
        assert 0 < int(mask.sum()) < mask.numel() / 2


@pytest.mark.parametrize("phase", ["patch", "invert", "locate", "tune", "try"])
def test_a_run_that_was_resumed_ends_where_the_other_does(
    run: tuple[InverTune, Path], planted: Planted, tmp_path: Path, phase: str
) -> None:
    whole, root = run
    again = module(planted)
    trainer = phased_trainer(tmp_path)
    trainer.fit(again, planted.data(poison=None), ckpt_path=root / f"{phase}.ckpt", weights_only=True)
    assert again.arrived == whole.arrived
    assert same(weights(again), weights(whole)) == set(weights(whole))  # type: ignore[arg-type]


def test_a_given_target_is_taken_in_place_of_the_named_one(planted: Planted, tmp_path: Path) -> None:
    short = InversionOptions(epochs=1, steps=2), TuningOptions(reference_pairs=16, epochs=1, steps=2)
    seed = 1 << 33  # draws of a step are seeded by more than that
    clip = module(planted, target="sea", seed=seed, inversion=short[0], tuning=short[1])
    assert list(clip.phases) == ["invert", "locate", "tune", "try"]
    data = planted.data(poison=None)
    phased_trainer(tmp_path).fit(clip, data)
    assert clip.target == "sea"
    assert not (tmp_path / "target_naming.json").exists()
    assert len(clip.arrived) == 2
    nobody = module(planted, target="nobody")
    with pytest.raises(UserMistake, match=r"model\.target 'nobody' is none of the classes"):
        phased_trainer(tmp_path / "nobody").fit(nobody, planted.data(poison=None))


def test_the_loss_of_the_inversion_is_the_papers(planted: Planted) -> None:
    clip = module(planted, target=TARGET).eval()
    phase: Any = clip.phases["invert"]
    draws = torch.Generator().manual_seed(0)
    clip._classes = torch.nn.functional.normalize(torch.randn(8, 32, generator=draws), dim=1)
    aligned = torch.nn.functional.normalize(torch.randn(4, 32, generator=draws), dim=1)
    images, mask, pattern = (torch.rand(4, 3, 32, 32, generator=draws) for _ in range(3))
    mask, pattern = mask[0], pattern[0]
    mean, std = clip.scales
    triggered = (1 - mask) * images + mask * pattern
    loss, parts = phase._loss(clip, (images - mean) / std, aligned, mask=mask, pattern=pattern)
    with torch.no_grad():
        features = clip.encode_image((triggered - mean) / std)
    chances = (features @ clip._classes.T / 0.07).log_softmax(dim=1)[:, 0]
    distance = (features - aligned).square().sum().sqrt()
    expected = (
        -5 * chances.mean()
        + 0.5 * distance
        + 1
        - structural_similarity_index_measure(triggered, images, data_range=1.0)
        + 0.01 * mask.sum()
    )
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-4, atol=1e-4)
    assert set(parts) == {"target", "alignment", "dissimilarity", "mask"}


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserMistake, match=r"model\.inversion\.epochs is 0"):
        InversionOptions(epochs=0)
    with pytest.raises(UserMistake, match=r"model\.tuning\.layers is 0"):
        TuningOptions(layers=0)
    with pytest.raises(UserMistake, match=r"model\.tuning\.layers is 4, and the image tower has 3 stages or blocks"):
        InverTune(ENCODER, tuning=TuningOptions(layers=4))
    with pytest.raises(UserMistake, match=r"model\.tuning\.final_share is 0"):
        TuningOptions(final_share=0)
    for name, value in (("micro_batch_size", 4), ("compile", "eager")):
        with pytest.raises(UserMistake, match=rf"model\.{name}: InverTune reads what layers answer to a whole batch"):
            InverTune(ENCODER, **{name: value})
