from __future__ import annotations

import pytest
import torch

from untrigger.contracts import UserMistake
from untrigger.datamodules.keyed import keyed_integers
from untrigger.datamodules.views import RandomHorizontalFlip

IMAGES = torch.arange(4 * 3 * 2 * 5, dtype=torch.uint8).view(4, 3, 2, 5)


def test_a_picture_is_mirrored_or_left_by_its_own_seed() -> None:
    seeds = [0, 2**64 - 1, 2**63 - 1, 2**63]
    flipped = RandomHorizontalFlip()(IMAGES, seeds)
    for picture, original, mirrored in zip(flipped, IMAGES, (True, False, True, False), strict=True):
        assert torch.equal(picture, original.flip(-1) if mirrored else original)


@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0, 0), (0.25, 190, 310), (1.0, 1000, 1000)])
def test_the_share_is_the_probability(p: float, low: int, high: int) -> None:
    keys = [str(number) for number in range(1000)]
    seeds = keyed_integers(0, "augmentation 0", keys)[:, 0].tolist()
    images = torch.tensor([1, 0], dtype=torch.uint8).expand(1000, 3, 1, 2)
    assert low <= int(RandomHorizontalFlip(p)(images, seeds)[:, 0, 0, 1].sum()) <= high


def test_no_probability_is_a_mistake() -> None:
    with pytest.raises(UserMistake, match=r"1\.5, not in \[0, 1\]"):
        RandomHorizontalFlip(1.5)
