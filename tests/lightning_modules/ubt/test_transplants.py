from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.lightning_modules.ubt.transplants import (
    BESIDE_THE_OBJECT,
    COARSE,
    EVERY,
    FINE,
    MEDIUM,
    Carrier,
    blurred,
    coarse_detail_added,
    colours_taken,
    detail,
    detail_added,
    detail_replaced,
    mixed,
    negative_added,
    partners,
    pasted,
    recoloured,
    transplant,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=generator(seed))


def gaussian(images: Tensor, width: float) -> Tensor:
    """A Gaussian of a width in pixels, written out: its window is twice as wide on either side."""
    reach = max(1, round(2 * width))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    bell = torch.exp(-(offsets**2) / (2 * width**2))
    window = torch.outer(bell, bell) / bell.sum() ** 2
    padded = functional.pad(images.double(), [reach] * 4, mode="reflect")
    planes = padded.flatten(0, 1)[:, None]
    return functional.conv2d(planes, window[None, None]).reshape(images.shape).float()


@pytest.mark.parametrize(("size", "sigma"), [(32, 1 / 32), (16, 1 / 8), (20, 3 / 32), (32, 1.5 / 32)])
def test_a_blur_is_a_gaussian_whose_width_is_a_share_of_the_side(size: int, sigma: float) -> None:
    images = pictures(2, size)
    torch.testing.assert_close(blurred(images, sigma), gaussian(images, sigma * size), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(detail(images, sigma) + blurred(images, sigma), images)


def test_a_blur_as_wide_as_the_picture_reflects_no_further_than_there_is() -> None:
    images = pictures(1, 8)
    wide = blurred(images, 4.0)
    assert wide.shape == images.shape
    assert wide.std() < images.std() / 4
    torch.testing.assert_close(blurred(torch.full((1, 3, 8, 8), 0.7), 1.0), torch.full((1, 3, 8, 8), 0.7))


def test_a_blur_is_of_full_precision_under_autocast() -> None:
    images = pictures(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = blurred(images, 1 / 8)
    assert found.dtype == torch.float32
    assert torch.equal(found, blurred(images, 1 / 8))


def test_a_recoloured_picture_has_the_others_channels_and_its_own_object() -> None:
    images, like = pictures(3), pictures(3, seed=1) * 0.3 + torch.tensor([1.0, -2.0, 0.5])[:, None, None]
    found = recoloured(images, like)
    for row in range(3):
        for channel in range(3):
            assert found[row, channel].mean() == pytest.approx(float(like[row, channel].mean()), abs=1e-5)
            assert found[row, channel].std() == pytest.approx(float(like[row, channel].std()), rel=1e-4)
            together = torch.stack([found[row, channel].flatten(), images[row, channel].flatten()])
            assert torch.corrcoef(together)[0, 1] == pytest.approx(1, abs=1e-4)
    assert torch.equal(recoloured(images, like), colours_taken(images, like, generator()))


def test_a_picture_of_one_colour_is_recoloured_to_one_colour() -> None:
    flat = torch.full((1, 3, 8, 8), 0.2)
    found = recoloured(flat, pictures(1, 8))
    assert found.isfinite().all()
    assert found.flatten(2).std(dim=2).max() < 1e-2


def test_carriers_that_are_sums() -> None:
    benign, suspects = pictures(4), pictures(4, seed=1)
    torch.testing.assert_close(
        detail_added(benign, suspects, generator()), benign + suspects - gaussian(suspects, FINE * 16)
    )
    torch.testing.assert_close(
        coarse_detail_added(benign, suspects, generator()), benign + suspects - gaussian(suspects, COARSE * 16)
    )
    torch.testing.assert_close(
        detail_replaced(benign, suspects, generator()),
        gaussian(benign, MEDIUM * 16) + suspects - gaussian(suspects, MEDIUM * 16),
    )
    assert torch.equal(negative_added(benign, suspects, generator()), benign - 0.5 * suspects)


def test_a_mixture_has_one_share_a_picture_and_each_has_its_own() -> None:
    benign, suspects = torch.zeros(200, 3, 4, 4), torch.ones(200, 3, 4, 4)
    shares = mixed(benign, suspects, generator())[:, 0, 0, 0]
    assert torch.equal(mixed(benign, suspects, generator()), shares[:, None, None, None].expand_as(benign))
    assert shares.min() >= 0.2
    assert shares.max() <= 0.8
    assert shares.max() - shares.min() > 0.5


@pytest.mark.parametrize("size", [8, 13, 32])
def test_a_paste_is_one_square_inside_the_picture(size: int) -> None:
    found = pasted(torch.zeros(300, 3, size, size), torch.ones(300, 3, size, size), generator())
    assert set(found.unique().tolist()) == {0.0, 1.0}
    sides = set()
    for picture in found:
        assert torch.equal(picture[0], picture[1])
        rows, columns = (picture[0].amax(dim=each).nonzero()[:, 0] for each in (1, 0))
        assert len(rows) == len(columns) == rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1
        assert picture[0].sum() == len(rows) ** 2
        sides.add(len(rows))
    assert (min(sides), max(sides)) == (size // 4, size // 2)
    reached = found[:, 0].amax(dim=0)
    assert all(edge.any() for edge in (reached[0], reached[-1], reached[:, 0], reached[:, -1])), "it may lie anywhere"


@pytest.mark.parametrize("carriers", [BESIDE_THE_OBJECT, EVERY, EVERY[:1]])
@pytest.mark.parametrize("count", [1, 3, 13])
def test_a_transplant_goes_the_ways_in_turn(carriers: tuple[Carrier, ...], count: int) -> None:
    benign, suspects = pictures(count), pictures(count, seed=1)
    found = transplant(benign, suspects, carriers, generator())
    drawn = generator()
    for index, carrier in enumerate(carriers):
        turn = [row for row in range(count) if row % len(carriers) == index]
        if turn:
            torch.testing.assert_close(found[turn], carrier(benign[turn], suspects[turn], drawn))
    assert torch.equal(found, transplant(benign, suspects, carriers, generator()))
    assert not torch.equal(found, benign)


def test_a_transplant_keeps_the_type_and_leaves_its_inputs_alone() -> None:
    benign, suspects = pictures(7).bfloat16(), pictures(7, seed=1).bfloat16()
    copies = benign.clone(), suspects.clone()
    for carrier in (mixed, pasted, negative_added):
        assert carrier(benign, suspects, generator()).dtype == torch.bfloat16
    assert transplant(pictures(7), pictures(7, seed=1), EVERY, generator()).dtype == torch.float32
    assert torch.equal(benign, copies[0])
    assert torch.equal(suspects, copies[1])


def test_what_hardly_shows_an_object_changes_nothing_between_empty_pictures() -> None:
    grey = torch.zeros(4, 3, 16, 16)
    for carrier in BESIDE_THE_OBJECT:
        assert carrier(grey, grey, generator()).abs().max() < 1e-3


def test_partners_share_no_word_where_there_is_one_that_does_not() -> None:
    related = torch.rand(200, 12, generator=generator(3)) < 0.7
    related[0] = True
    related[1] = ~torch.eye(12, dtype=torch.bool)[5]
    found = partners(related, generator())
    assert found.dtype == torch.int64
    assert 0 <= found[0] < 12
    assert found[1] == 5
    possible = ~related.all(dim=1)
    assert not related[torch.arange(200), found][possible].any()
    assert torch.equal(found, partners(related, generator()))


def test_partners_are_drawn_evenly() -> None:
    related = torch.zeros(6000, 4, dtype=torch.bool)
    related[:, 1] = True
    counts = torch.bincount(partners(related, generator()), minlength=4)
    assert counts[1] == 0
    assert (counts[[0, 2, 3]] / 6000 - 1 / 3).abs().max() < 0.03
    everyone = torch.bincount(partners(torch.ones(6000, 4, dtype=torch.bool), generator()), minlength=4)
    assert (everyone / 6000 - 1 / 4).abs().max() < 0.03
