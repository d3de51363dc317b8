"""Pictures in 8 bit, normalised."""

from __future__ import annotations

import pytest
import torch

from untrigger.datamodules.normaliser import Normaliser

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 5), (1, 3, 4, 7), (0, 3, 5, 5), (3, 3, 300, 300), (90, 3, 32, 32)], ids=str
)
def test_channels_get_their_own_mean_and_spread(layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=layout)
    given = images.clone()
    normalised = Normaliser(MEAN, STD)(images)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    expected = ((images.double() / 255 - mean) / std).float()
    torch.testing.assert_close(normalised, expected, rtol=1e-5, atol=1e-6)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, given)


def test_one_normaliser_serves_pictures_of_several_widths() -> None:
    normaliser = Normaliser(MEAN, STD)
    wide, narrow = (torch.full((1, 3, 2, width), 77, dtype=torch.uint8) for width in (9, 4))
    assert torch.equal(normaliser(wide)[..., :4], normaliser(narrow))
