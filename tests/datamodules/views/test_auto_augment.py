from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from untrigger.datamodules.views import TransformView
from untrigger.datamodules.views.auto_augment import auto_augment

SEEDS = [2**64 - 1, 2**63, *range(400)]


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(len(SEEDS), 3, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=20, mode="bilinear").mul(255).byte()
    return fine.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "options",
    [
        *({"policy": policy} for policy in v2.AutoAugmentPolicy),
        {"interpolation": v2.InterpolationMode.BILINEAR, "fill": [10.0, 200.0, 90.0]},
    ],
    ids=["imagenet", "cifar10", "svhn", "bilinear and filled"],
)
def test_all_at_once_is_what_torchvision_gives_one_by_one(options: dict[str, Any], images: Tensor) -> None:
    transform = v2.AutoAugment(**options)
    before = images.clone()
    views = auto_augment(transform, images, SEEDS)
    assert torch.equal(images, before)
    assert views.is_contiguous(memory_format=torch.channels_last)
    changed = 0
    for image, seed, view in zip(images, SEEDS, views, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(view, transform(image)), seed
        changed += not torch.equal(view, image)
    assert changed > len(SEEDS) / 2


class Darkened(v2.AutoAugment):
    """Does something else."""

    def forward(self, *inputs: Any) -> Any:
        return inputs[0] // 2


def test_a_subclass_is_called_as_it_is(images: Tensor) -> None:
    assert torch.equal(TransformView(Darkened())(images, SEEDS), images // 2)
