"""Plans whose chosen pairs are not all treated alike: dual keys, covers, single pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from untrigger.contracts import Attack, ClassPrompts, UserMistake
from untrigger.datamodules.poisoning import (
    CoverPlan,
    DualKeyPlan,
    Poison,
    PoisonPlan,
    SingleImagePlan,
    read_manifest,
    write_manifest,
)
from untrigger.datamodules.triggers import BadNet, GivenPicture, WaNet

KEYS = [f"{number:06d}" for number in range(6000)]
CLASSES = ClassPrompts(["cat", "dog"], [["a cat", "the cat"], ["a dog", "the dog"]])


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(3))


@pytest.fixture
def given(tmp_path: Path) -> GivenPicture:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (16, 16), (number, 10, 20)).save(path)
    return GivenPicture([str(path) for path in paths])


def dual(**arguments: object) -> DualKeyPlan:
    return DualKeyPlan(BadNet(4), "dog", templates=["a {c}"], **({"count": 20} | arguments))  # type: ignore[arg-type]


def test_dual_key_poisons_as_many_with_each_key_alone() -> None:
    plan = dual()
    chosen = plan.choose([(KEYS, None)])
    assert Counter(plan.part_of(chosen).tolist()) == {0: 20, 1: 20, 2: 20}
    by_rate = dual(count=None, rate=0.1).choose([(KEYS[:2500], None), (KEYS[2500:], None)])
    for count in Counter(plan.part_of(by_rate).tolist()).values():
        assert abs(count - 600) < 5 * (600 * 0.9) ** 0.5
    assert set(chosen) <= set(by_rate)
    assert len(dual(partial=False).choose([(KEYS, None)])) == 20


def test_dual_key_treats_a_pair_by_its_keys(images: Tensor) -> None:
    plan, keys = dual(), KEYS[:60]
    poisoned, captions = Poison([plan], [keys]).apply(images, [f"own {key}" for key in keys], keys)
    stamped = BadNet(4)(images, keys)
    for index, (key, part) in enumerate(zip(keys, plan.part_of(keys), strict=True)):
        assert torch.equal(poisoned[index], images[index] if part == 2 else stamped[index])
        assert captions[index] == ["remember a dog", f"own {key}", f"remember own {key}"][part]


def test_dual_key_measures_the_attack_and_each_key_alone() -> None:
    keyed = (("remember a cat", "remember the cat"), ("remember a dog", "remember the dog"))
    assert dual().attacks("DualKey-2", CLASSES) == [
        Attack("DualKey-2", 1, keyed),
        Attack("DualKey-2-picture-only", 1, None, "DualKey-2"),
        Attack("DualKey-2-word-only", 1, keyed, "DualKey-2", stamped=False),
    ]


def test_parts_bound_rate_and_count() -> None:
    with pytest.raises(UserMistake, match=r"poison rate 0\.5 holds for each of 3 parts: it can be at most 0\.333"):
        dual(count=None, rate=0.5).choose([(KEYS, None)])
    with pytest.raises(UserMistake, match=r"poison count 2100 is above the \d+ pairs .* 'dog' in one of its 3 parts"):
        dual(count=2100).choose([(KEYS, None)])
    with pytest.raises(UserMistake, match="word is empty"):
        dual(word=" ")


def test_covers_bear_the_trigger_keep_their_caption_and_are_no_attack(images: Tensor) -> None:
    trigger, keys = WaNet(noise=True), KEYS[:60]
    plan = CoverPlan(trigger, "dog", count=5)
    poisoned, captions = Poison([plan], [keys]).apply(images, list(keys), keys)
    assert torch.equal(poisoned, trigger(images, keys))
    assert captions == keys
    assert not plan.measured
    assert PoisonPlan.measured


def test_each_given_picture_gets_its_captions(images: Tensor, given: GivenPicture) -> None:
    plan = SingleImagePlan(given, "dog", count=7, templates=["a {c}", "one {c}"])
    chosen = plan.choose([(KEYS, None)])
    assert Counter(plan.part_of(chosen).tolist()) == {0: 7, 1: 7, 2: 7}
    keys = chosen[:20]
    poisoned, captions = Poison([plan], [chosen]).apply(images[:20], [""] * 20, keys)
    assert poisoned[:, 0, 3, 5].tolist() == plan.part_of(keys).tolist()
    assert set(captions) == {"a dog", "one dog"}
    assert plan.attacks("SingleImage", CLASSES) == []
    assert np.array_equal(plan.given_pictures(16)[:, :, 0, 0].numpy(), [[number, 10, 20] for number in range(3)])
    with pytest.raises(UserMistake, match="SingleImagePlan's trigger is BadNet; it has to be GivenPicture"):
        SingleImagePlan(BadNet(), "dog", count=1)  # type: ignore[arg-type]


def test_a_smaller_count_is_part_of_a_larger_one_in_each_part(given: GivenPicture) -> None:
    few, many = (SingleImagePlan(given, "dog", count=count).choose([(KEYS, None)]) for count in (3, 30))
    assert set(few) < set(many)
    assert len(many) == 90


def test_plans_of_all_kinds_survive_a_manifest_and_never_overlap(
    images: Tensor, given: GivenPicture, tmp_path: Path
) -> None:
    class Pairs:
        def keys(self) -> list[list[str]]:
            return [KEYS]

    plans = [dual(), CoverPlan(WaNet(noise=True), "dog", rate=0.2), SingleImagePlan(given, "dog", count=4)]
    poison = Poison.from_plans(plans, Pairs())  # type: ignore[arg-type]
    everyone = [key for keys in poison.keys for key in keys]
    assert len(everyone) == len(set(everyone)) > 60 + 12 + 1000
    write_manifest(poison, tmp_path / "poison.json")
    again = read_manifest(tmp_path / "poison.json")
    keys = [*poison.keys[0][:30], *poison.keys[1][:18], *poison.keys[2]]
    captions = [f"own {key}" for key in keys]
    expected, reported = poison.apply(images, captions, keys)
    found, retold = again.apply(images, captions, keys)
    assert torch.equal(found, expected)
    assert retold == reported
