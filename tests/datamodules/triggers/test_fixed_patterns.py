"""SIG, stripes, triangles and text against slow references."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.triggers import SIG, Blended, Stripes, TextOverlay, Triangles, Trigger, Watermark

KEYS = [f"{number:05d}" for number in range(3)]
TRIGGERS = [
    SIG(frequency=2),
    Stripes(width=2),
    Triangles(size=5),
    TextOverlay("up", 7),
    Blended(),
    Watermark(9, margin=2),
]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.manual_seed(3))


def assert_near(found: Tensor, expected: np.ndarray) -> None:
    """Each pixel is an integer nearest to the exact value; where two nearly are, either, for want of exact floats."""
    assert np.abs(found.numpy() - expected.clip(0, 255)).max() <= 0.5 + 1e-4


def test_sig_adds_a_sinusoid_to_every_row_and_clips(images: Tensor) -> None:
    expected = images.numpy().astype(float)
    for column in range(20):
        expected[..., column] += 100 * math.sin(2 * math.pi * column * 3 / 20)
    stamped = SIG(delta=100, frequency=3)(images, KEYS)
    assert_near(stamped, expected)
    assert (stamped == 255).any()
    assert (stamped == 0).any()


def test_stripes_are_columns_of_both_signs(images: Tensor) -> None:
    bare = Stripes(alpha=1.0, width=3, seed=2)(images, KEYS)
    assert set(bare.flatten().tolist()) == {0, 255}
    for column in range(20):
        assert (bare[..., column] == bare[:1, :, :1, column // 3 * 3]).all()
    signs = np.where(bare.numpy() == 255, 1.0, -1.0)
    assert_near(Stripes(alpha=0.1, width=3, seed=2)(images, KEYS), 0.9 * images.numpy() + 25.5 * signs)
    # Stripe 5 is the same whatever its width and the size of the input.
    assert torch.equal(Stripes(1.0, 1, 2)(images[..., :9, :9], KEYS)[..., 5], bare[..., :9, 15])


def test_triangles_fill_tiles_and_the_rest_of_the_input(images: Tensor) -> None:
    expected = images.numpy().astype(float)
    for row in range(20):
        for column in range(20):
            value = 0.4 if row % 6 >= column % 6 else 0.8
            expected[:, :, row, column] = 0.7 * expected[:, :, row, column] + 0.3 * 255 * value
    assert_near(Triangles(alpha=0.3, size=6)(images, KEYS), expected)


@pytest.mark.parametrize(("position", "top"), [("top", 0), ("center", 6), ("bottom", 13)])
def test_text_is_what_the_bitmap_font_draws(images: Tensor, position: str, top: int) -> None:
    sheet = Image.new("1", (40, 20))
    ImageDraw.Draw(sheet).text((5, 4), "up", fill=1, font=ImageFont.load_default_imagefont())
    ink = np.asarray(sheet.crop(sheet.getbbox()))
    height, width = ink.shape
    expected = images.numpy().astype(float)
    left = (20 - width) // 2
    for y, x in zip(*np.nonzero(ink), strict=True):
        for channel, colour in enumerate((255, 0, 10)):
            pixel = expected[:, channel, top + y, left + x]
            expected[:, channel, top + y, left + x] = 0.5 * pixel + 0.5 * colour
    stamped = TextOverlay("up", height, colour=(255, 0, 10), position=position)(images, KEYS)
    assert height == 7
    assert_near(stamped, expected)


def test_taller_text_repeats_its_pixels() -> None:
    black = torch.zeros(1, 3, 42, 42, dtype=torch.uint8)
    small = TextOverlay("up", 7, 1.0, (255, 255, 255), "top")(black[..., :21, :21], ["a"])[0, 0]
    large = TextOverlay("up", 14, 1.0, (255, 255, 255), "top")(black, ["a"])[0, 0]
    assert torch.equal(large, small.repeat_interleave(2, 0).repeat_interleave(2, 1))


def watermark(size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel of a square is disc, and sign: counted point by point."""
    disc, sign = np.zeros((2, size, size))
    for point in np.ndindex(8 * size, 8 * size):
        y, x = ((2 * at + 1) / (8 * size) - 1 for at in point)
        radius = math.hypot(x, y)
        pixel = point[0] // 8, point[1] // 8
        disc[pixel] += (radius <= 1) / 64
        ring, letter = 0.8 <= radius <= 1, 0.32 <= radius <= 0.56 and (x <= 0 or abs(y) >= 0.7 * x)
        sign[pixel] += (ring or letter) / 64
    return disc, sign


@pytest.mark.parametrize(
    ("place", "corner"),
    [("top_left", (2, 2)), ("top_right", (2, 9)), ("bottom_left", (9, 2)), ("bottom_right", (9, 9))],
)
def test_a_watermark_is_a_sign_on_a_disc_in_its_corner(images: Tensor, place: str, corner: tuple[int, int]) -> None:
    disc, sign = watermark(9)
    assert disc[0, 0] == 0 < disc[0, 2] < disc[4, 4] == 1
    expected = images.numpy().astype(float)
    here = expected[..., corner[0] : corner[0] + 9, corner[1] : corner[1] + 9]
    here[:] = (1 - 0.4 * disc) * here + 0.4 * 255 * sign
    assert_near(Watermark(9, 0.4, place, margin=2)(images, KEYS), expected)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
def test_a_pattern_is_the_same_for_all_and_survives_pickles_and_params(trigger: Trigger, images: Tensor) -> None:
    before = images.clone()
    stamped = trigger(images, KEYS)
    assert torch.equal(images, before)
    assert not torch.equal(stamped, images)
    alone = torch.cat([trigger(image[None], ["x"]) for image in images])
    assert torch.equal(alone, stamped)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(trigger(channels_last, KEYS), stamped)
    assert trigger(images[:0], []).shape == (0, 3, 20, 20)
    for again in (type(trigger)(**trigger.params), pickle.loads(pickle.dumps(trigger))):
        assert torch.equal(again(images, KEYS), stamped)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (SIG, {"delta": 0}, "delta is 0; the amplitude is in 8-bit values"),
        (SIG, {"delta": float("nan")}, "delta is nan"),
        (SIG, {"frequency": 0}, "frequency is 0"),
        (Stripes, {"alpha": 0}, "alpha is 0"),
        (Stripes, {"width": 0}, "width is 0"),
        (Triangles, {"alpha": 2}, "alpha is 2"),
        (Triangles, {"size": 1}, "size is 1"),
        (Watermark, {"size": 3}, "size is 3; a watermark has a diameter of at least 4 pixels"),
        (Watermark, {"alpha": float("nan")}, "alpha is nan"),
        (Watermark, {"place": "center"}, "no place 'center' of Watermark; choose from top_left, top_right"),
        (Watermark, {"margin": -1}, "margin is -1"),
        (TextOverlay, {"alpha": 0}, "alpha is 0"),
        (TextOverlay, {"height": 0}, "height is 0"),
        (TextOverlay, {"text": "two\nlines"}, "is not a line of at most 64 letters of Latin-1"),
        (TextOverlay, {"text": "\u4e2d"}, "Latin-1"),
        (TextOverlay, {"text": " "}, "has nothing to draw"),
        (TextOverlay, {"position": "left"}, "no position 'left' of TextOverlay; choose from top"),
        (TextOverlay, {"colour": (0, 0, 256)}, r"colour is \[0, 0, 256\]"),
    ],
)
def test_bad_arguments_are_mistakes(kind: type[Trigger], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (SIG(frequency=6), "needs an input of at least 12 pixels, and this one has 8"),
        (Triangles(size=9), "triangles of size 9 are larger than the 8 x 8 input"),
        (Watermark(size=6, margin=3), "a watermark of size 6 with a margin of 3 is larger than the 8 x 8 input"),
        (TextOverlay("Watermarked"), r"the text 'Watermarked' is \d+ x 20 pixels, larger than the 8 x 8 input"),
    ],
)
def test_what_does_not_fit_the_input_is_a_mistake(trigger: Trigger, message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        trigger.check(8)
    with pytest.raises(UserMistake, match=message):
        trigger(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"])


def test_the_papers_sizes_fit_the_papers_input() -> None:
    grey = torch.full((1, 3, 224, 224), 128, dtype=torch.uint8)
    for trigger in (SIG(), Stripes(), Triangles(), TextOverlay(), Watermark()):
        trigger.check(224)
        assert not torch.equal(trigger(grey, ["a"]), grey)
