from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.contracts import UserMistake
from untrigger.datamodules.triggers import WaNet

SIDE = 24
KEYS = [f"{number:05d}" for number in range(4)]


@pytest.fixture
def images() -> Tensor:
    """Smooth pictures, so that a hundredth of a pixel does not change them by more than one."""
    coarse = 255 * torch.rand(4, 3, 6, 6, generator=torch.manual_seed(3))
    return functional.interpolate(coarse, size=SIDE, mode="bilinear").round().to(torch.uint8)


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
    for place in range(side):
        at = place * (k - 1) / (side - 1)
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[place, min(max(tap, 0), k - 1)] += cubic(at - tap)
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
    return out


@pytest.mark.parametrize(("k", "s"), [(4, 0.5), (3, 4.0)])
def test_the_warp_is_the_papers(images: Tensor, k: int, s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    field = np.random.default_rng(0).uniform(-1, 1, (2, k, k)).astype(np.float32)
    words = ((field.astype(np.float64) + 1) / 2 * 2**32).astype("<u4")
    monkeypatch.setattr(
        "untrigger.datamodules.triggers.wanet.keyed_bytes", lambda *_: words.reshape(1, -1).view(np.uint8)
    )
    field = field / np.abs(field).mean()
    moves = [s * enlarged(part, SIDE) / SIDE * (SIDE - 1) / 2 for part in field]
    rows, columns = np.mgrid[:SIDE, :SIDE] + np.stack(moves)
    stamped = WaNet(k, s)(images, KEYS)
    assert not torch.equal(stamped, images)
    for image, found in zip(images.numpy(), stamped.numpy(), strict=True):
        assert np.abs(found - slow_warp(image, rows, columns)).max() <= 1


def test_the_mean_displacement_is_about_half_of_s_in_pixels() -> None:
    positions = WaNet(s=2.0)._draw(64).double() / 256
    moved = positions - torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij"))
    assert 0.5 < float(moved.abs().mean()) < 1.5
    # Smooth: neighbours move alike, which independent draws do not.
    assert float((moved[..., 1:] - moved[..., :-1]).abs().mean()) < 0.2 * float(moved.abs().mean())


def test_the_warp_keeps_the_mean_and_a_flat_picture(images: Tensor) -> None:
    stamped = WaNet()(images, KEYS)
    assert (stamped.double().mean((2, 3)) - images.double().mean((2, 3))).abs().max() < 2
    flat = torch.full((1, 3, SIDE, SIDE), 77, dtype=torch.uint8)
    for noise in (False, True):
        assert torch.equal(WaNet(s=5.0, noise=noise)(flat, ["a"]), flat)


def test_noise_moves_each_pixel_by_up_to_half_a_pixel_by_key(images: Tensor) -> None:
    trigger = WaNet(noise=True, seed=5)
    whole = trigger(images, KEYS)
    shake = torch.stack([trigger._shaken(SIDE, key) - trigger._positions[SIDE] for key in KEYS]).double() / 256
    assert shake.abs().max() <= 0.5
    assert abs(float(shake.mean())) < 0.05
    # Uniform on one pixel, less what the border cuts off.
    assert 0.2 < float(shake.std()) < 0.3
    assert not torch.equal(shake[0], shake[1])
    assert torch.equal(WaNet(noise=True, seed=5)(images[[2, 0]], [KEYS[2], KEYS[0]]), whole[[2, 0]])
    rows, columns = trigger._shaken(SIDE, KEYS[1]).numpy() / 256
    assert np.abs(whole[1].numpy() - slow_warp(images[1].numpy(), rows, columns)).max() <= 1
    assert not torch.equal(WaNet(seed=5)(images, KEYS), whole)


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
