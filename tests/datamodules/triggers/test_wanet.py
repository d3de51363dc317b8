from __future__ import annotations

import pickle
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.triggers import WaNet
from untrigger.datamodules.triggers.resampling import UNITS

SIDE = 24
KEYS = [f"{number:05d}" for number in range(4)]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.manual_seed(3))


def cubic(distance: float) -> float:
    """The interpolation kernel with a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def enlarged(field: np.ndarray, side: int) -> np.ndarray:
    """Bicubic interpolation of ``(k, k)`` to ``(side, side)``, corners aligned, borders repeated."""
    k = len(field)
    weights = np.zeros((side, k))
    for position in range(side):
        at = position * (k - 1) / (side - 1)
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[position, min(max(tap, 0), k - 1)] += cubic(at - tap)
    large: np.ndarray = weights @ field @ weights.T
    return large


def slow_warp(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of ``(3, S, S)`` at positions in pixels, clipped to the border."""
    out, last = np.zeros(image.shape), image.shape[-1] - 1
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            row, column = min(max(rows[y, x], 0), last), min(max(columns[y, x], 0), last)
            top, left = min(int(row), last - 1), min(int(column), last - 1)
            down, right = row - top, column - left
            out[:, y, x] = (1 - down) * ((1 - right) * image[:, top, left] + right * image[:, top, left + 1])
            out[:, y, x] += down * ((1 - right) * image[:, top + 1, left] + right * image[:, top + 1, left + 1])
    return np.floor(out + 0.5)


def paper_positions(k: int, s: float, field: np.ndarray) -> np.ndarray:
    """Rows and columns, in pixels, that the paper's formulas give for ``(2, k, k)`` control vectors."""
    moves = np.stack([s * enlarged(part, SIDE) / SIDE * (SIDE - 1) / 2 for part in field / np.abs(field).mean()])
    positions: np.ndarray = np.mgrid[:SIDE, :SIDE] + moves
    return positions


@pytest.mark.parametrize(("k", "s"), [(4, 0.5), (3, 4.0)])
def test_the_warp_is_the_papers_at_multiples_of_a_32nd_pixel(
    images: Tensor, k: int, s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = np.random.default_rng(0).uniform(-1, 1, (2, k, k)).astype(np.float32).astype(np.float64)
    words = ((field + 1) / 2 * 2**32).astype("<u4")
    monkeypatch.setattr(
        "untrigger.datamodules.triggers.wanet.keyed_bytes", lambda *_: words.reshape(1, -1).view(np.uint8)
    )
    rows, columns = np.round(32 * paper_positions(k, s, field)) / 32
    stamped = WaNet(k, s)(images, KEYS)
    assert not torch.equal(stamped, images)
    for image, found in zip(images.numpy(), stamped.numpy(), strict=True):
        assert np.array_equal(found, slow_warp(image, rows, columns))


def test_the_mean_displacement_is_about_half_of_s_in_pixels() -> None:
    moved = WaNet(s=2.0)._draw(64) / UNITS - np.mgrid[:64, :64][::-1]
    assert 0.5 < np.abs(moved).mean() < 1.5
    # Smooth: neighbours move alike, which independent draws do not.
    assert np.abs(np.diff(moved)).mean() < 0.2 * np.abs(moved).mean()


def test_a_large_picture_is_warped_in_bands_as_it_is_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8, generator=torch.manual_seed(3))
    banded = WaNet(s=9.0)(images, ["a"])
    monkeypatch.setattr("untrigger.datamodules.triggers.resampling._SHARED_FROM", 2**20)
    assert torch.equal(WaNet(s=9.0)(images, ["a"]), banded)


def test_the_warp_keeps_the_mean_and_a_flat_picture(images: Tensor) -> None:
    stamped = WaNet()(images, KEYS)
    assert (stamped.double().mean((2, 3)) - images.double().mean((2, 3))).abs().max() < 2
    flat = torch.full((1, 3, SIDE, SIDE), 77, dtype=torch.uint8)
    for noise in (False, True):
        assert torch.equal(WaNet(s=5.0, noise=noise)(flat, ["a"]), flat)


def seen_positions(trigger: WaNet, keys: list[str]) -> np.ndarray:
    """Where a trigger takes the pixels of 8 x 8 pictures from, read off ramps: rows and columns, in 32nds."""
    rows = 32 * torch.arange(8, dtype=torch.uint8)[:, None].expand(8, 8)
    ramps = torch.stack((rows, rows.T, rows)).expand(len(keys), 3, 8, 8)
    return trigger(ramps, keys)[:, :2].numpy().astype(int)


def test_noise_moves_each_pixel_by_up_to_half_a_pixel_by_key() -> None:
    keys = [f"{number:05d}" for number in range(500)]
    # So weak that the field only settles which of two equally near positions are within half a pixel.
    seen = seen_positions(WaNet(s=1e-6, noise=True, seed=5), keys)
    shake = seen - 32 * np.mgrid[:8, :8]
    inner = shake[:, :, 1:7, 1:7]
    assert np.abs(shake).max() == 16
    assert (inner % 2 == 0).all()
    # Each of the 16 draws comes 2,250 times among 36,000; six standard deviations are 280.
    for direction in (0, 1):
        values, counts = np.unique(inner[:, direction] % 32, return_counts=True)
        assert len(values) == 16
        assert np.abs(counts - 500 * 36 / 16).max() < 6 * np.sqrt(500 * 36 / 16)
    # Rows, columns, neighbours and keys are drawn apart.
    for one, other in ((inner[:, 0], inner[:, 1]), (inner[:, :, 1:], inner[:, :, :-1]), (inner[1:], inner[:-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04
    assert (shake[:, 0, 0] >= 0).all()
    assert (shake[:, 1, :, 7] <= 0).all()


def test_noise_is_added_to_the_warp() -> None:
    keys = [f"{number:05d}" for number in range(500)]
    warp = seen_positions(WaNet(s=3.0, seed=2), keys[:1])[0]
    seen = seen_positions(WaNet(s=3.0, seed=2, noise=True), keys)
    away = (warp >= 16) & (warp <= 7 * 32 - 16)  # from the border, which cuts the noise off
    # Half a unit of rounding, and six standard deviations of a mean of 500 draws.
    assert np.abs(seen.mean(0) - warp)[away].max() < 0.5 + 1 + 6 * 9.3 / np.sqrt(500)
    assert np.abs(seen - warp).max() <= 17


def test_the_noise_modes_pixels_are_interpolated_exactly_whatever_the_batch() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.manual_seed(3))
    trigger = WaNet(s=3.0, noise=True, seed=5)
    whole = trigger(images, KEYS)
    for image, found, (rows, columns) in zip(images, whole, seen_positions(trigger, KEYS) / 32, strict=True):
        assert np.array_equal(found.numpy(), slow_warp(image.numpy(), rows, columns))
    again = WaNet(s=3.0, noise=True, seed=5)
    assert torch.equal(again(images[[2, 0]], [KEYS[2], KEYS[0]]), whole[[2, 0]])
    assert torch.equal(again(images[1:2], KEYS[1:2]), whole[1:2])


def test_the_draws_stay_the_same() -> None:
    """What a manifest stands for: the pixels of one picture, whatever machine and release."""
    picture = torch.arange(3 * 16 * 16).mul(37).remainder(256).to(torch.uint8).view(1, 3, 16, 16)
    digests = {
        noise: sha256(WaNet(s=2.0, noise=noise, seed=1)(picture, ["a"]).contiguous().numpy().tobytes()).hexdigest()[:16]
        for noise in (False, True)
    }
    assert digests == {False: "19542e1d8d501804", True: "d6f35ce55cac623d"}


def test_pictures_in_either_memory_order_pickles_and_params(images: Tensor) -> None:
    for trigger in (WaNet(3, 1.5, seed=2), WaNet(noise=True)):
        stamped = trigger(images, KEYS)
        assert torch.equal(trigger(images.contiguous(memory_format=torch.channels_last), KEYS), stamped)
        assert trigger(images[:0], []).shape == (0, 3, SIDE, SIDE)
        for again in (WaNet(**trigger.params), pickle.loads(pickle.dumps(trigger))):
            assert torch.equal(again(images, KEYS), stamped)
        assert len(pickle.dumps(trigger)) < 1000


def test_one_trigger_serves_several_sizes(images: Tensor) -> None:
    trigger = WaNet()
    first = trigger(images, KEYS)
    assert torch.equal(trigger(images[..., :9, :9], KEYS), WaNet()(images[..., :9, :9], KEYS))
    assert torch.equal(trigger(images, KEYS), first)


def test_mistakes() -> None:
    with pytest.raises(UserMistake, match="k is 1; the grid has at least 2"):
        WaNet(k=1)
    for s in (0.0, float("nan"), float("inf")):
        with pytest.raises(UserMistake, match="s is"):
            WaNet(s=s)
    with pytest.raises(UserMistake, match="k 4 is larger than the 3 x 3 input"):
        WaNet()(torch.zeros(1, 3, 3, 3, dtype=torch.uint8), ["a"])
