from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torchvision.transforms import v2

from untrigger.contracts import UserMistake
from untrigger.datamodules.views import ImageView, TransformView

SEEDS = [0, 1, 7, 2**31, 2**32 + 5, 2**63, 2**64 - 1, *range(100, 121)]


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(len(SEEDS), 3, 6, 6, generator=generator)
    return nn.functional.interpolate(coarse, size=24, mode="bilinear").mul(255).byte()


def random_states() -> tuple[bytes, Any, Any]:
    numpy_state = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(numpy_state), random.getstate()


class Shifted:
    """Draws from every generator that a transform could use."""

    def __call__(self, image: Tensor) -> Tensor:
        shift = int(torch.randint(50, ())) + random.randrange(50) + int(np.random.randint(50))
        return image.roll(shift, dims=-1)


def fails(image: Tensor) -> Tensor:
    torch.rand(5)
    random.random()
    raise RuntimeError("no picture today")


@pytest.mark.parametrize(
    "transform",
    [
        v2.AutoAugment(),
        v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
        v2.RandAugment(),
        v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(24, padding=4), v2.RandomErasing()]),
    ],
    ids=["imagenet", "cifar10", "randaugment", "compose"],
)
def test_a_view_is_what_torchvision_gives_by_hand_under_the_seed(transform: nn.Module, images: Tensor) -> None:
    views = TransformView(transform)(images, SEEDS)
    for image, seed, view in zip(images, SEEDS, views, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(view, transform(image))


def test_the_default_is_autoaugment_with_the_imagenet_policy(images: Tensor) -> None:
    assert torch.equal(TransformView()(images, SEEDS), TransformView(v2.AutoAugment())(images, SEEDS))
    assert TransformView()(images, SEEDS).dtype == torch.uint8


def test_a_view_does_not_depend_on_the_batch(images: Tensor) -> None:
    view = TransformView()
    whole = view(images, SEEDS)
    assert torch.equal(view(images.flip(0), SEEDS[::-1]), whole.flip(0))
    for index in (0, 5, len(SEEDS) - 1):
        torch.rand(index)
        assert torch.equal(view(images[index : index + 1], SEEDS[index : index + 1])[0], whole[index])


def test_seeds_draw_different_views(images: Tensor) -> None:
    view = TransformView()
    same = images[:1].expand(len(SEEDS), -1, -1, -1)
    distinct = torch.unique(view(same, SEEDS).flatten(1), dim=0)
    assert len(distinct) > len(SEEDS) / 2
    assert not torch.equal(view(images, SEEDS), view(images, [seed ^ 1 for seed in SEEDS]))


def test_numpy_integers_are_seeds(images: Tensor) -> None:
    view = TransformView(Shifted())
    seeds = np.array(SEEDS, dtype=np.uint64)
    assert torch.equal(view(images, list(seeds)), view(images, SEEDS))


def test_the_random_states_of_the_process_are_left_as_they_were(images: Tensor) -> None:
    for transform in (None, Shifted()):
        before = random_states()
        TransformView(transform)(images, SEEDS)
        assert random_states() == before


def test_the_random_states_are_left_as_they_were_when_the_transform_fails(images: Tensor) -> None:
    before = random_states()
    with pytest.raises(RuntimeError, match="no picture today"):
        TransformView(fails)(images, SEEDS)
    assert random_states() == before


def test_transforms_that_draw_elsewhere_than_from_torch_are_reproducible(images: Tensor) -> None:
    view = TransformView(Shifted())
    first = view(images, SEEDS)
    random.random()
    np.random.random()
    assert torch.equal(view(images, SEEDS), first)
    assert not torch.equal(view(images, [seed ^ 1 for seed in SEEDS]), first)


def test_transforms_that_work_in_place_leave_the_pictures_alone(images: Tensor) -> None:
    before = images.clone()
    views = TransformView(v2.RandomErasing(p=1.0, inplace=True))(images, SEEDS)
    assert torch.equal(images, before)
    assert not torch.equal(views, before)


def test_views_survive_pickling(images: Tensor) -> None:
    view = TransformView(v2.Compose([v2.AutoAugment(), v2.RandomHorizontalFlip()]))
    assert torch.equal(pickle.loads(pickle.dumps(view))(images, SEEDS), view(images, SEEDS))


def test_an_empty_batch_has_no_views(images: Tensor) -> None:
    assert TransformView()(images[:0], []).shape == (0, 3, 24, 24)


def test_pictures_without_a_seed_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="shorter"):
        TransformView()(images, SEEDS[:-1])


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v2.Resize(12), r"Resize returns uint8 \(3, 12, 12\) for uint8 \(3, 24, 24\)"),
        (v2.ToDtype(torch.float32, scale=True), r"ToDtype returns float32 \(3, 24, 24\)"),
        (v2.ToPILImage(), r"ToPILImage returns Image for"),
        (v2.RandomCrop(64), r"RandomCrop fails on a uint8 picture of \(3, 24, 24\)"),
        (fails, r"fails fails on a uint8 picture of \(3, 24, 24\): no picture today"),
    ],
)
def test_transforms_that_do_not_fit_are_refused_before_training(
    transform: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(UserMistake, match=message):
        TransformView(transform).check(24)


def test_transforms_that_fit_pass_the_check() -> None:
    before = random_states()
    TransformView().check(24)
    assert random_states() == before


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (
            {"class_path": "torchvision.transforms.v2.AutoAugment", "init_args": {"policy": "CIFAR10"}},
            v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
        ),
        (
            {
                "class_path": "torchvision.transforms.v2.Compose",
                "init_args": {
                    "transforms": [
                        {"class_path": "torchvision.transforms.v2.RandomHorizontalFlip"},
                        {
                            "class_path": "torchvision.transforms.v2.RandomCrop",
                            "init_args": {"size": 24, "padding": 4},
                        },
                    ]
                },
            },
            v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(24, padding=4)]),
        ),
        ("torchvision.transforms.v2.functional.equalize", v2.functional.equalize),
    ],
    ids=["class", "nested", "function"],
)
def test_a_config_names_the_transform(transform: object, expected: Callable[..., Tensor], images: Tensor) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--view", type=ImageView)
    config = {"class_path": "untrigger.datamodules.views.TransformView", "init_args": {"transform": transform}}
    view = parser.instantiate(parser.parse_object({"view": config})).view
    assert torch.equal(view(images, SEEDS), TransformView(expected)(images, SEEDS))
