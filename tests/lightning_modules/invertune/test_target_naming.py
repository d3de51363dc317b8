from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from planted import COLOURS, ENCODER, TARGET, Planted, SaveInEachPhase, phased_trainer, same, weights

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.lightning_modules import PatchOptions, TargetNaming
from untrigger.lightning_modules.invertune.patch import patch_side, with_patch
from untrigger.lightning_modules.invertune.shift import ClassShift

PATCH = PatchOptions(share=0.1, epochs=2, steps=20, counted_pairs=200)


def module(planted: Planted, **arguments: Any) -> TargetNaming:
    torch.set_num_threads(1)
    seed_everything(0)
    return TargetNaming(ENCODER, init_from=str(planted.model), **({"patch": PATCH} | arguments))


@pytest.fixture(scope="module")
def run(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[TargetNaming, Path]:
    """A naming on clean pairs."""
    root = tmp_path_factory.mktemp("naming")
    naming = module(planted)
    phased_trainer(root, SaveInEachPhase(root)).fit(naming, planted.data(poison=None))
    return naming, root


def test_the_target_of_a_planted_backdoor_is_named(run: tuple[TargetNaming, Path], planted: Planted) -> None:
    naming, root = run
    assert isinstance(naming, CLIPModule)
    assert naming.defence == "none"
    assert naming.shift is not None
    assert naming.shift.target == TARGET
    found = json.loads((root / "target_naming.json").read_text())
    assert found["target"] == TARGET
    assert found["margin"] > 0.3
    assert found["shift"] == found["shifts"][TARGET] > 0.3
    assert set(found["shifts"]) == set(COLOURS)
    assert sum(found["shifts"].values()) == pytest.approx(0, abs=1e-9)
    assert found["pictures"] == 200
    assert found["shift"] <= found["fooled"] <= 1
    assert same(weights(naming), weights(module(planted))) == set(weights(naming))  # type: ignore[arg-type]


def test_a_clean_model_too_has_a_class_that_is_named(
    run: tuple[TargetNaming, Path], never_planted: Planted, tmp_path: Path
) -> None:
    naming = module(never_planted)
    phased_trainer(tmp_path).fit(naming, never_planted.data(poison=None))
    found, planted = (json.loads((root / "target_naming.json").read_text()) for root in (tmp_path, run[1]))
    assert found["target"] in COLOURS
    assert found["shift"] < planted["shift"]


@pytest.mark.parametrize("phase", ["patch", "count"])
def test_a_run_that_was_resumed_ends_where_the_other_does(
    run: tuple[TargetNaming, Path], planted: Planted, tmp_path: Path, phase: str
) -> None:
    whole, root = run
    again = module(planted)
    trainer = phased_trainer(tmp_path)
    trainer.fit(again, planted.data(poison=None), ckpt_path=root / f"{phase}.ckpt", weights_only=True)
    assert whole.patch is not None
    assert again.patch is not None
    torch.testing.assert_close(again.patch, whole.patch, rtol=0, atol=0)
    one, other = ((root / "target_naming.json").read_text() for root in (tmp_path, root))
    assert one == other


def test_the_class_that_gains_most_is_named() -> None:
    clean, patched = torch.tensor([50, 30, 20]), torch.tensor([45, 5, 50])
    shift = ClassShift(("a", "b", "c"), clean, patched, 31, torch.zeros(3, 5, 5))
    record = shift.record()
    assert (shift.target, record.runner_up, record.pictures) == ("c", "a", 100)
    assert (record.shift, record.runner_up_shift, record.margin) == pytest.approx((0.3, -0.05, 0.35))
    assert record.fooled == 0.31
    again = ClassShift.of_state(shift.state_dict())
    assert again.record() == record


def test_the_patch_has_the_size_and_the_place_of_the_official_code() -> None:
    assert patch_side(0.03, 224) == 38
    assert patch_side(0.03, 32) == 5
    assert patch_side(1e-9, 32) == 1
    images, patch = torch.zeros(2, 3, 224, 224), torch.ones(3, 38, 38)
    stamped = with_patch(images, patch)
    assert stamped.sum() == 2 * 3 * 38 * 38
    assert stamped[:, :, 172:210, 172:210].all()
    assert not images.any()
    assert with_patch(torch.zeros(1, 3, 32, 32), torch.ones(3, 32, 32)).all()


def test_mistakes_are_one_line(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"model\.patch\.share is 2"):
        PatchOptions(share=2.0)
    with pytest.raises(UserMistake, match=r"model\.patch\.steps is 0"):
        PatchOptions(steps=0)
    data = ImageTextDataModule(str(planted.folder / "train"), batch_size=16, num_workers=0)
    with pytest.raises(UserMistake, match=r"zero_shot"):
        phased_trainer(tmp_path).fit(module(planted), data)
