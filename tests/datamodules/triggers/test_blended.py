from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.keyed import keyed_integers
from untrigger.datamodules.triggers import Blended

KEYS = [f"{number:05d}" for number in range(9)]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (len(KEYS), 3, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(3))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "cartoon.webp"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(path, lossless=True)
    return str(path)


def assert_blend(blended: Tensor, images: Tensor, patterns: Tensor, alpha: Fraction) -> None:
    """Each pixel is an integer nearest to the exact blend; where two are, either, for want of exact floats."""
    pixels = zip(blended.flatten().tolist(), images.flatten().tolist(), patterns.flatten().tolist(), strict=True)
    for pixel, x, t in pixels:
        assert abs(pixel - ((1 - alpha) * x + alpha * t)) <= Fraction(1, 2)


@pytest.mark.parametrize("alpha", ["0.2", "0.35", "1"])
def test_noise_is_blended_by_the_formula(images: Tensor, alpha: str) -> None:
    # With alpha 1 the pattern itself is seen.
    pattern = Blended(alpha=1.0, seed=4)(images[:1], KEYS[:1])
    blended = Blended(alpha=float(alpha), seed=4)(images, KEYS)
    assert_blend(blended, images, pattern.expand_as(images), Fraction(alpha))


def test_a_picture_is_resized_to_the_square_and_blended(images: Tensor, picture: str) -> None:
    shown = np.array(Image.open(picture).convert("RGB").resize((12, 12), Image.Resampling.BICUBIC))
    pattern = torch.from_numpy(shown).permute(2, 0, 1).expand_as(images)
    assert_blend(Blended(0.2, "picture", picture)(images, KEYS), images, pattern, Fraction("0.2"))


def test_fresh_noise_differs_from_key_to_key_and_is_blended(images: Tensor) -> None:
    patterns = Blended(1.0, "fresh_noise")(images, KEYS)
    assert len({tuple(pattern.flatten().tolist()) for pattern in patterns}) == len(KEYS)
    assert_blend(Blended(0.2, "fresh_noise")(images, KEYS), images, patterns, Fraction("0.2"))


@pytest.mark.parametrize("pattern", ["noise", "fresh_noise"])
def test_noise_is_uniform(pattern: str) -> None:
    drawn = Blended(1.0, pattern)(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a"])
    counts = torch.bincount(drawn.flatten().long(), minlength=256)
    # 48 of each of the 256 values; seven standard deviations are 48.
    assert counts.min() > 0
    assert counts.max() < 96


@pytest.mark.parametrize("pattern", ["noise", "fresh_noise"])
def test_a_blend_depends_on_the_key_and_not_on_the_batch(images: Tensor, pattern: str) -> None:
    whole = Blended(0.2, pattern)(images, KEYS)
    part = Blended(0.2, pattern)(images[[7, 2, 4]], [KEYS[7], KEYS[2], KEYS[4]])
    assert torch.equal(part, whole[[7, 2, 4]])
    assert not torch.equal(Blended(0.2, pattern, seed=1)(images, KEYS), whole)


def test_fresh_noise_stays_the_same_and_takes_either_memory_order(images: Tensor) -> None:
    """What a manifest stands for: the noise of a key, whatever machine and release."""
    trigger = Blended(1.0, "fresh_noise", seed=3)
    drawn = trigger(images[:1], ["a"])
    state = [*keyed_integers(3, "blended fresh noise", ["a"], draws=3)[0].tolist(), 1]
    words = []
    for _ in range(3 * 12 * 12 // 8):
        a, b, c, counter = state
        words.append((a + b + counter) % 2**64)
        rotated = (c << 24 | c >> 40) % 2**64
        state = [b ^ b >> 11, (c + (c << 3)) % 2**64, (rotated + words[-1]) % 2**64, (counter + 1) % 2**64]
    pattern = np.frombuffer(b"".join(word.to_bytes(8, "little") for word in words), dtype=np.uint8)
    assert np.array_equal(drawn[0].permute(1, 2, 0).numpy(), pattern.reshape(12, 12, 3))
    assert torch.equal(trigger(images.contiguous(memory_format=torch.channels_last), KEYS), trigger(images, KEYS))


def test_one_trigger_serves_several_sizes(images: Tensor) -> None:
    trigger = Blended()
    large = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    first = trigger(images, KEYS)
    assert torch.equal(trigger(large, KEYS[:1]), Blended()(large, KEYS[:1]))
    assert torch.equal(trigger(images, KEYS), first)


def test_images_are_left_alone_and_none_at_all_will_do(images: Tensor) -> None:
    before = images.clone()
    Blended()(images, KEYS)
    assert torch.equal(images, before)
    assert Blended()(images[:0], []).shape == (0, 3, 12, 12)


def test_params_and_pickle_draw_the_same_again(images: Tensor, picture: str) -> None:
    for trigger in [Blended(0.3, "picture", picture), Blended(seed=4), Blended(0.1, "fresh_noise")]:
        again = Blended(**trigger.params)
        assert again.params == trigger.params
        assert torch.equal(again(images, KEYS), trigger(images, KEYS))
        assert torch.equal(pickle.loads(pickle.dumps(trigger))(images, KEYS), trigger(images, KEYS))


def test_a_changed_picture_is_refused(picture: str) -> None:
    params = Blended(0.2, "picture", picture).params
    Image.new("RGB", (4, 4)).save(picture)
    with pytest.raises(UserMistake, match="is not the file that the trigger was made with"):
        Blended(**params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"pattern": "stripes"}, "no pattern 'stripes' of Blended; choose from noise,"),
        ({"pattern": "picture"}, "go together"),
        ({"picture": "a.png"}, "go together"),
    ],
)
def test_bad_arguments_are_mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        Blended(**arguments)
