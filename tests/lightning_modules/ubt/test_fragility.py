from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from untrigger.lightning_modules.ubt.fragility import fragility, lead
from untrigger.lightning_modules.ubt.gentle import GENTLE, cropped, grey, warped


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_lead_is_an_roc_auc() -> None:
    random = np.random.default_rng(0)
    for suspects, ordinary in [(8, 100), (30, 7), (1, 1)]:
        # Rounded, so that some are equal.
        mine = random.normal(0.5, 1, suspects).round(1).astype(np.float32)
        theirs = random.normal(0, 1, ordinary).round(1).astype(np.float32)
        is_suspect = torch.tensor([1, 0]).repeat_interleave(torch.tensor([suspects, ordinary]))
        ranks = torch.from_numpy(np.concatenate([mine, theirs])) / 10 + 0.5  # not taken for logits
        assert lead(mine, theirs) == pytest.approx(float(binary_auroc(ranks, is_suspect)))
    assert lead(scores(), scores(1)) == lead(scores(1), scores()) == 0.5


def test_fragile_are_those_that_lead_as_they_are_alone() -> None:
    high, low = scores(0.6, 0.7, 0.8), scores(0.1, 0.2, 0.3)
    assert fragility(np.stack([high, low, low]), np.stack([low, high, high])) == 1
    # Good examples of a word lead changed or not, even where all margins fall.
    assert fragility(np.stack([high, high / 2]), np.stack([low, low / 2])) == 0
    # Of nobody there is nothing to say.
    assert fragility(np.zeros((2, 0), np.float32), np.stack([low, high])) == 0
    # Whoever leads only once changed is the contrary of fragile.
    assert fragility(np.stack([low, high]), np.stack([high, low])) == -1


@pytest.mark.parametrize("size", [32, 64, 224])
def test_gentle_changes_leave_an_object_what_it_is(size: int) -> None:
    ramp = torch.linspace(-1, 1, size)
    images = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.full((size, size), 0.3)])
    images = images.expand(2, -1, -1, -1)
    for change in GENTLE:
        changed = change(images)
        assert changed.shape == images.shape
        middle = slice(size // 4, -size // 4)
        difference = (changed - images.mean(1, keepdim=True) if change is grey else changed - images)[
            ..., middle, middle
        ]
        assert difference.abs().mean() < 0.2


def test_a_patch_in_a_corner_is_cropped_away() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 28:, 28:] = 1
    assert not cropped(images).any()
    images[..., 14:18, 14:18] = 1
    assert cropped(images).sum() > images[..., :20, :20].sum()


@pytest.mark.parametrize("size", [32, 64])
def test_a_warp_moves_pixels_by_a_few_hundredths_of_the_side(size: int) -> None:
    axis = torch.arange(size).float()
    where = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size), torch.zeros(size, size)])[None]
    moved = (warped(where, 0) - where)[0, :2]
    middle = slice(size // 8, -size // 8)  # pixels from outside are 0
    assert 0.01 < moved[:, middle, middle].abs().mean() / size < 0.04
    # One field for all pictures, another for another seed.
    assert torch.equal(warped(torch.cat([where, where]), 0)[1:], warped(where, 0))
    assert not torch.equal(warped(where, 1), warped(where, 0))
