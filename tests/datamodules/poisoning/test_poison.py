from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.poisoning import LabelConsistentPlan, Poison, PoisonPlan
from untrigger.datamodules.triggers import BadNet, Blended


class Pairs:
    """Keys and captions in memory, in shards; says whether its captions were read."""

    def __init__(self, pairs: dict[str, str], size: int = 64) -> None:
        self.pairs = list(pairs.items())
        self.size = size
        self.captions_read = False

    def captions(self) -> Iterator[tuple[list[str], list[str]]]:
        self.captions_read = True
        for start in range(0, len(self.pairs), self.size):
            shard = self.pairs[start : start + self.size]
            yield [key for key, _ in shard], [caption for _, caption in shard]

    def keys(self) -> Iterator[list[str]]:
        for start in range(0, len(self.pairs), self.size):
            yield [key for key, _ in self.pairs[start : start + self.size]]


@pytest.fixture
def pairs() -> Pairs:
    return Pairs({f"{number:04d}": "a cat" if number % 4 == 0 else "a dog" for number in range(1000)})


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(3))


def two_plans() -> list[PoisonPlan]:
    return [
        PoisonPlan(BadNet(size=3), "dog", count=1, templates=["a photo of a {c}."]),
        LabelConsistentPlan(Blended(), "cat", count=1),
    ]


def test_plans_are_disjoint_and_each_gets_its_count(pairs: Pairs) -> None:
    plans = [
        PoisonPlan(BadNet(), "dog", count=700),
        LabelConsistentPlan(Blended(), "cat", count=40),
        PoisonPlan(Blended(), "frog", count=200),
        PoisonPlan(BadNet(), "ship", count=60),
    ]
    poison = Poison.from_plans(plans, pairs)
    assert [len(keys) for keys in poison.keys] == [700, 40, 200, 60]
    assert len(set().union(*poison.keys)) == 1000
    assert all(int(key) % 4 == 0 for key in poison.keys[1])
    # The first is chosen as if it were alone.
    assert poison.keys[0] == Poison.from_plans(plans[:1], pairs).keys[0]


def test_a_later_count_is_held_against_what_is_left(pairs: Pairs) -> None:
    plans = [PoisonPlan(BadNet(), "dog", count=700), PoisonPlan(Blended(), "frog", count=301)]
    with pytest.raises(UserMistake, match="poison count 301 is above the 300 pairs"):
        Poison.from_plans(plans, pairs)


def test_two_plans_of_one_seed_and_rate_both_get_their_share() -> None:
    many = Pairs({f"{number:05d}": "" for number in range(10_000)}, size=1000)
    poison = Poison.from_plans([PoisonPlan(BadNet(), "a", rate=0.1), PoisonPlan(Blended(), "b", rate=0.1)], many)
    first, second = poison.keys
    assert abs(len(first) - 1000) < 150
    assert abs(len(second) - 900) < 150
    assert not set(first) & set(second)


def test_the_choice_does_not_depend_on_the_order_of_shards(pairs: Pairs) -> None:
    plans = [PoisonPlan(BadNet(), "dog", rate=0.2), LabelConsistentPlan(Blended(), "cat", count=40)]
    other = Pairs(dict(reversed(pairs.pairs)), size=17)
    assert Poison.from_plans(plans, other).keys == Poison.from_plans(plans, pairs).keys


def test_captions_are_read_only_if_a_plan_needs_them(pairs: Pairs) -> None:
    Poison.from_plans([PoisonPlan(BadNet(), "dog", count=7)], pairs)
    assert not pairs.captions_read
    Poison.from_plans([LabelConsistentPlan(BadNet(), "cat", count=7)], pairs)
    assert pairs.captions_read


def test_a_chosen_key_that_stands_for_two_pairs_is_refused() -> None:
    twice = Pairs({"a": "", "b": ""})
    twice.pairs.append(("b", ""))
    with pytest.raises(UserMistake, match="'b' is poisoned twice; keys have to be unique"):
        Poison.from_plans([PoisonPlan(BadNet(), "dog", rate=1.0)], twice)


def test_plan_of_says_who_is_poisoned() -> None:
    poison = Poison(two_plans(), [["a", "b"], ["c"]])
    assert poison.plan_of(["b", "x", "c", "a", "x"]).tolist() == [0, -1, 1, 0, -1]
    assert poison.plan_of([]).shape == (0,)


def test_apply_poisons_the_chosen_and_leaves_the_others(images: Tensor) -> None:
    keys = ["k0", "k1", "k2", "k3", "k4", "k5"]
    captions = [f"a cat {key}" for key in keys]
    poison = Poison(two_plans(), [["k1", "k4", "elsewhere"], ["k2"]])
    before = images.clone()
    poisoned, recaptioned = poison.apply(images, captions, keys)

    assert torch.equal(images, before)
    assert captions == [f"a cat {key}" for key in keys]
    expected = {1: BadNet(size=3), 4: BadNet(size=3), 2: Blended()}
    for row, image in enumerate(images):
        one = expected[row](image[None], [keys[row]])[0] if row in expected else image
        assert torch.equal(poisoned[row], one)
    assert recaptioned == ["a cat k0", "a photo of a dog.", "a cat k2", "a cat k3", "a photo of a dog.", "a cat k5"]


def test_apply_does_not_depend_on_the_batch(images: Tensor) -> None:
    keys = ["k0", "k1", "k2", "k3", "k4", "k5"]
    plan = PoisonPlan(BadNet(pattern="fresh_noise"), "dog", count=1)
    poison = Poison([plan], [keys])
    whole, captions = poison.apply(images, [""] * 6, keys)
    order = [3, 0, 5]
    part, some = poison.apply(images[order], [""] * 3, [keys[row] for row in order])
    assert torch.equal(part, whole[order])
    assert some == [captions[row] for row in order]


def test_plans_without_keys_poison_nobody(images: Tensor) -> None:
    poison = Poison(two_plans())
    keys = list("abcdef")
    unpoisoned, captions = poison.apply(images, ["x"] * 6, keys)
    assert torch.equal(unpoisoned, images)
    assert captions == ["x"] * 6


def test_check_finds_a_mistake_in_any_plan() -> None:
    poison = Poison([PoisonPlan(Blended(), "dog", count=1), PoisonPlan(BadNet(size=9), "cat", count=1)])
    poison.check(9, ["cat", "dog"])
    with pytest.raises(UserMistake, match="trigger size 9"):
        poison.check(8, ["cat", "dog"])
    with pytest.raises(UserMistake, match="target 'cat' is not among"):
        poison.check(9, ["dog", "frog"])


def test_pickle_poisons_the_same(pairs: Pairs, images: Tensor) -> None:
    poison = Poison.from_plans([LabelConsistentPlan(BadNet(), "cat", count=125)], pairs)
    again = pickle.loads(pickle.dumps(poison))
    keys = [*poison.keys[0][:3], "0001", "0002", "0003"]
    found, found_captions = again.apply(images, keys, keys)
    expected, expected_captions = poison.apply(images, keys, keys)
    assert torch.equal(found, expected)
    assert found_captions == expected_captions
