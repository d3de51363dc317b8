"""The colour filter against the standard's formulas, pixel by pixel."""

from __future__ import annotations

import pickle
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.triggers import ColourFilter

KEYS = [f"{number:05d}" for number in range(3)]


@pytest.fixture
def images() -> Tensor:
    pictures = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(3))
    # Whatever reaches the ends of the range: black, white and the pure colours.
    corners = torch.tensor([[255 * (number >> bit & 1) for number in range(8)] for bit in range(3)], dtype=torch.uint8)
    pictures[0, :, 0, :8] = corners
    return pictures


def nashville(pixel: np.ndarray) -> np.ndarray:
    """The filter of one pixel, red, green and blue in [0, 1], part by part as the W3C's Filter Effects define them."""
    pixel = 0.44 * pixel + 0.56 * np.minimum(pixel, np.array([247, 176, 153]) / 255)
    pixel = 0.6 * pixel + 0.4 * np.maximum(pixel, np.array([0, 70, 150]) / 255)
    a = 1 - 0.2
    sepia = [
        [0.393 + 0.607 * a, 0.769 - 0.769 * a, 0.189 - 0.189 * a],
        [0.349 - 0.349 * a, 0.686 + 0.314 * a, 0.168 - 0.168 * a],
        [0.272 - 0.272 * a, 0.534 - 0.534 * a, 0.131 + 0.869 * a],
    ]
    pixel = np.clip(np.array(sepia) @ pixel, 0, 1)
    pixel = np.clip(1.2 * pixel - (0.5 * 1.2) + 0.5, 0, 1)
    pixel = np.clip(1.05 * pixel, 0, 1)
    s = 1.2
    saturate = [
        [0.213 + 0.787 * s, 0.715 - 0.715 * s, 0.072 - 0.072 * s],
        [0.213 - 0.213 * s, 0.715 + 0.285 * s, 0.072 - 0.072 * s],
        [0.213 - 0.213 * s, 0.715 - 0.715 * s, 0.072 + 0.928 * s],
    ]
    return np.clip(np.array(saturate) @ pixel, 0, 1)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_each_pixel_is_what_the_standard_says(images: Tensor, strength: float) -> None:
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    found = ColourFilter(strength)(images, KEYS).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    expected = np.array([(1 - strength) * pixel + strength * 255 * nashville(pixel / 255) for pixel in pixels])
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_only_the_pixel_itself_counts(images: Tensor) -> None:
    before = images.clone()
    stamped = ColourFilter()(images, KEYS)
    assert torch.equal(images, before)
    turned = ColourFilter()(images.rot90(1, (2, 3))[1:2], ["x"])
    assert torch.equal(turned, stamped.rot90(1, (2, 3))[1:2])
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ColourFilter()(channels_last, KEYS), stamped)
    assert ColourFilter()(images[:0], []).shape == (0, 3, 12, 12)


def test_the_colours_stay_the_same() -> None:
    """What a manifest stands for: the pixels of one picture, whatever machine and release."""
    picture = torch.arange(3 * 16 * 16).mul(37).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    digests = {
        strength: sha256(ColourFilter(strength)(picture, ["a"]).contiguous().numpy().tobytes()).hexdigest()[:16]
        for strength in (1.0, 0.5)
    }
    assert digests == {1.0: "08f3cdb07cca5922", 0.5: "d95bfbf4c78d20c4"}


def test_params_and_pickle_draw_the_same_again(images: Tensor) -> None:
    trigger = ColourFilter(0.7)
    for again in (ColourFilter(**trigger.params), pickle.loads(pickle.dumps(trigger))):
        assert again.params == {"strength": 0.7}
        assert torch.equal(again(images, KEYS), trigger(images, KEYS))


@pytest.mark.parametrize("strength", [0.0, 1.1, float("nan")])
def test_a_strength_out_of_range_is_a_mistake(strength: float) -> None:
    with pytest.raises(UserMistake, match=r"strength is .*above 0 and at most 1"):
        ColourFilter(strength)
