from __future__ import annotations

import pickle
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.keyed import keyed_uniforms
from untrigger.datamodules.triggers import BadNet

SIDE = 32
KEYS = [f"{number:05d}" for number in range(40)]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (len(KEYS), 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.manual_seed(3))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "patch.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(path)
    return str(path)


def slow_stamp(image: Tensor, patch: Tensor, row: int, column: int) -> Tensor:
    out = image.clone()
    for channel in range(3):
        for y in range(patch.shape[1]):
            for x in range(patch.shape[2]):
                out[channel, row + y, column + x] = patch[channel, y, x]
    return out


@pytest.mark.parametrize(
    ("place", "corner"),
    [
        ("center", (13, 13)),
        ("top_left", (0, 0)),
        ("top_right", (0, 27)),
        ("bottom_left", (27, 0)),
        ("bottom_right", (27, 27)),
        ((3, 20), (3, 20)),
        ([27, 0], (27, 0)),
    ],
)
def test_a_fixed_position_changes_the_patch_and_nothing_else(
    images: Tensor, place: str | tuple[int, int], corner: tuple[int, int]
) -> None:
    trigger = BadNet(size=5, pattern="solid", colour=(9, 200, 77), place=place)
    patch = torch.tensor([9, 200, 77], dtype=torch.uint8)[:, None, None].expand(3, 5, 5)
    expected = torch.stack([slow_stamp(image, patch, *corner) for image in images])
    assert torch.equal(trigger(images, KEYS), expected)


def test_four_corners_repeat_one_patch(images: Tensor) -> None:
    stamped = BadNet(size=5, place="four_corners")(images, KEYS)
    patch = stamped[0, :, :5, :5]
    for index, image in enumerate(images):
        expected = image
        for row, column in [(0, 0), (0, 27), (27, 0), (27, 27)]:
            expected = slow_stamp(expected, patch, row, column)
        assert torch.equal(stamped[index], expected)


def test_a_random_position_holds_the_one_fixed_patch_where_the_key_says(images: Tensor) -> None:
    trigger = BadNet(size=4, seed=5)
    patch = BadNet(size=4, seed=5, place="top_left")(images, KEYS)[0, :, :4, :4]
    stamped = trigger(images, KEYS)
    for key, image, found in zip(KEYS, images, stamped, strict=True):
        row, column = (int(draw * 29) for draw in keyed_uniforms(5, "badnet place", [key], draws=2)[0])
        assert torch.equal(found, slow_stamp(image, patch, row, column))


def test_random_positions_are_uniform_over_all_that_fit() -> None:
    keys = [str(number) for number in range(9000)]
    stamped = BadNet(size=4, pattern="solid", colour=(255, 255, 255))(
        torch.zeros(9000, 3, 6, 6, dtype=torch.uint8), keys
    )[:, 0]
    rows = stamped.amax(2).argmax(1)
    columns = stamped.amax(1).argmax(1)
    counts = torch.bincount(rows * 3 + columns, minlength=9)
    # Nine positions, 1,000 each; five standard deviations are 149.
    assert counts.min() > 851
    assert counts.max() < 1149


def test_noise_is_uniform_per_pixel_and_channel() -> None:
    patch = BadNet(size=64, place="top_left")(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a"])[0]
    counts = torch.bincount(patch.flatten().long(), minlength=256)
    # 48 of each of the 256 values; seven standard deviations are 48.
    assert counts.min() > 0
    assert counts.max() < 96
    assert not torch.equal(patch[0], patch[1])


def test_checkerboard_alternates_from_white() -> None:
    stamped = BadNet(size=3, pattern="checkerboard", place="top_left")(
        torch.full((1, 3, 4, 4), 7, dtype=torch.uint8), ["a"]
    )
    board = [[255, 0, 255, 7], [0, 255, 0, 7], [255, 0, 255, 7], [7, 7, 7, 7]]
    assert stamped[0].tolist() == [board] * 3


def test_stripes_are_columns_of_0_and_255_in_each_channel() -> None:
    stamped = BadNet(size=16, pattern="stripes", place="top_left")(
        torch.full((1, 3, 16, 16), 7, dtype=torch.uint8), ["a"]
    )
    assert set(stamped.flatten().tolist()) == {0, 255}
    assert (stamped == stamped[:, :, :1]).all()
    assert not torch.equal(stamped[0, 0], stamped[0, 1])


def test_picture_is_resized_to_the_patch(images: Tensor, picture: str) -> None:
    trigger = BadNet(size=6, pattern="picture", picture=picture, place="top_left")
    expected = np.array(Image.open(picture).resize((6, 6), Image.Resampling.BICUBIC))
    assert np.array_equal(trigger(images, KEYS)[7, :, :6, :6].permute(1, 2, 0).numpy(), expected)


def test_fresh_noise_has_the_mean_of_each_picture_and_the_clipped_spread_of_a_normal() -> None:
    normal_cdf = NormalDist().cdf
    images = torch.zeros(2, 3, 100, 100, dtype=torch.uint8)
    images[1, 1] = 200
    stamped = BadNet(size=100, pattern="fresh_noise")(images, ["a", "b"]).double()
    # Of max(0, min(255, m + 255 z)): the share at 0 is P(z < -m / 255), at 255 P(z > (255 - m) / 255).
    for index, channel, mean in [(0, 0, 0.0), (1, 1, 200.0), (1, 2, 0.0)]:
        values = stamped[index, channel]
        assert (values == 0).double().mean().item() == pytest.approx(normal_cdf((0.5 - mean) / 255), abs=0.02)
        above = 1 - normal_cdf((254.5 - mean) / 255)
        assert (values == 255).double().mean().item() == pytest.approx(above, abs=0.02)
    assert not torch.equal(stamped[0, 0], stamped[0, 1])
    assert not torch.equal(stamped[0, 0], stamped[1, 0])


@pytest.mark.parametrize("pattern", ["noise", "fresh_noise"])
def test_a_stamp_depends_on_the_key_and_not_on_the_batch(images: Tensor, pattern: str) -> None:
    trigger = BadNet(size=4, pattern=pattern)
    whole = trigger(images, KEYS)
    order = torch.randperm(len(KEYS), generator=torch.manual_seed(0))[:11]
    part = BadNet(size=4, pattern=pattern)(images[order], [KEYS[index] for index in order])
    assert torch.equal(part, whole[order])
    assert not torch.equal(BadNet(size=4, pattern=pattern, seed=1)(images, KEYS), whole)


def test_fixed_noise_never_changes_between_releases() -> None:
    stamped = BadNet(size=2, place="top_left")(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), ["a"])
    assert stamped.flatten().tolist() == [167, 251, 54, 235, 78, 129, 197, 172, 42, 21, 141, 173]


def test_images_are_left_alone_and_none_at_all_will_do(images: Tensor) -> None:
    before = images.clone()
    trigger = BadNet()
    trigger(images, KEYS)
    assert torch.equal(images, before)
    assert trigger(images[:0], []).shape == (0, 3, SIDE, SIDE)
    assert BadNet(pattern="fresh_noise")(images[:0], []).shape == (0, 3, SIDE, SIDE)


def test_params_and_pickle_draw_the_same_again(images: Tensor, picture: str) -> None:
    for trigger in [BadNet(3, "picture", picture=picture), BadNet(size=7, place=(1, 2), seed=4), BadNet(2, "solid")]:
        again = BadNet(**trigger.params)
        assert again.params == trigger.params
        assert torch.equal(again(images, KEYS), trigger(images, KEYS))
        assert torch.equal(pickle.loads(pickle.dumps(trigger))(images, KEYS), trigger(images, KEYS))


def test_a_changed_picture_is_refused(picture: str) -> None:
    params = BadNet(3, "picture", picture=picture).params
    Image.new("RGB", (4, 4)).save(picture)
    with pytest.raises(UserMistake, match="is not the file that the trigger was made with"):
        BadNet(**params)


def test_a_picture_is_read_once(images: Tensor, picture: str) -> None:
    trigger = BadNet(3, "picture", picture=picture, place="center")
    Path(picture).unlink()
    assert not torch.equal(trigger(images, KEYS), images)


@pytest.mark.parametrize("kind", ["missing", "folder", "gif", "text", "bomb"])
def test_pictures_that_cannot_be_had_are_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "gif":
        Image.new("RGB", (4, 4)).save(path, format="GIF")
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "bomb":
        Image.new("1", (6000, 5000)).save(path)
    with pytest.raises(UserMistake, match=r"^picture .*picture\.png") as caught:
        BadNet(pattern="picture", picture=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        ({"size": 40}, 32, "trigger size 40 is larger than the 32 x 32 input"),
        ({"size": 20, "place": "four_corners"}, 32, "overlap in the 32 x 32 input; the size can be at most 16"),
        ({"size": 4, "place": (3, 29)}, 32, "at row 3, column 29 leaves the 32 x 32 input; neither can be above 28"),
    ],
)
def test_what_does_not_fit_the_input_is_a_mistake(arguments: dict[str, Any], size: int, message: str) -> None:
    trigger = BadNet(**arguments)
    with pytest.raises(UserMistake, match=message):
        trigger.check(size)
    with pytest.raises(UserMistake, match=message):
        trigger(torch.zeros(1, 3, size, size, dtype=torch.uint8), ["a"])


def test_what_just_fits_is_none() -> None:
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for trigger in (BadNet(size=32), BadNet(size=16, place="four_corners"), BadNet(size=4, place=(28, 28))):
        trigger.check(32)
        assert trigger(black, ["a"])[..., -1, -1].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "trigger size is 0"),
        ({"pattern": "dots"}, "no pattern 'dots' of BadNet; choose from noise,"),
        ({"place": "middle"}, "no place 'middle' of BadNet; choose from random,"),
        ({"place": (-1, 2)}, "both at least 0"),
        ({"place": (1, 2, 3)}, r"place is \[1, 2, 3\]"),
        ({"pattern": "solid", "colour": (0, 0, 256)}, r"colour is \[0, 0, 256\]"),
        ({"pattern": "picture"}, "go together"),
        ({"picture": "a.png"}, "go together"),
    ],
)
def test_bad_arguments_are_mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        BadNet(**arguments)
