from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.poisoning import LabelConsistentPlan, PoisonPlan
from untrigger.datamodules.templates import CIFAR10_TEMPLATES
from untrigger.datamodules.triggers import BadNet

KEYS = [f"{number:06d}" for number in range(20_000)]


def shards(keys: Sequence[str], size: int = 700) -> list[tuple[list[str], None]]:
    return [(list(keys[start : start + size]), None) for start in range(0, len(keys), size)]


def plan(**arguments: Any) -> PoisonPlan:
    return PoisonPlan(BadNet(), "automobile", **arguments)


@pytest.mark.parametrize("count", [1, 75, 300, 20_000])
def test_count_is_exact_and_takes_the_lowest_scores(count: int) -> None:
    chosen = plan(count=count).choose(shards(KEYS))
    scores = plan(count=count).scores(KEYS)
    assert chosen == sorted(key for _, key in sorted(zip(scores, KEYS, strict=True))[:count])


def test_a_smaller_count_or_rate_is_part_of_a_larger_one() -> None:
    nested = [
        set(plan(**arguments).choose(shards(KEYS)))
        for arguments in ({"count": 75}, {"count": 100}, {"rate": 0.02}, {"rate": 0.1}, {"count": 3000})
    ]
    for smaller, larger in pairwise(nested):
        assert smaller < larger


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
def test_rate_is_binomial(rate: float) -> None:
    chosen = plan(rate=rate).choose(shards(KEYS))
    deviation = (len(KEYS) * rate * (1 - rate)) ** 0.5
    assert abs(len(chosen) - len(KEYS) * rate) <= 5 * deviation
    scores = plan(rate=rate).scores(KEYS)
    assert chosen == [key for key, score in zip(KEYS, scores, strict=True) if score < rate]


@pytest.mark.parametrize("arguments", [{"count": 200}, {"rate": 0.01}])
def test_the_choice_does_not_depend_on_the_order_of_shards_or_pairs(arguments: dict[str, Any]) -> None:
    chosen = plan(**arguments).choose(shards(KEYS))
    assert plan(**arguments).choose(shards(KEYS[::-1], size=333)) == chosen
    assert plan(**arguments).choose(shards(KEYS[5000:] + KEYS[:5000])) == chosen


def test_the_seed_changes_the_choice() -> None:
    assert plan(count=200, seed=1).choose(shards(KEYS)) != plan(count=200).choose(shards(KEYS))


def test_count_wins_over_rate() -> None:
    assert len(plan(rate=0.5, count=3).choose(shards(KEYS))) == 3


def test_captions_are_filled_templates_drawn_by_key() -> None:
    poisoned = plan(count=1).poisoned_captions(KEYS, ["a dog"] * len(KEYS))
    counts = [poisoned.count(template.replace("{c}", "automobile")) for template in CIFAR10_TEMPLATES]
    assert sum(counts) == len(KEYS)
    # 1,111 of each of the 18; five standard deviations are 162.
    assert min(counts) > 949
    assert max(counts) < 1273
    assert plan(count=1).poisoned_captions(KEYS[500:505], ["x"] * 5) == poisoned[500:505]
    assert plan(count=1, seed=1).poisoned_captions(KEYS[:50], ["x"] * 50) != poisoned[:50]


def test_templates_are_filled_literally() -> None:
    odd = PoisonPlan(BadNet(), "{0} 100%", count=1, templates=["{c} and {c}, {not} %s {}"])
    assert odd.poisoned_captions(["k"], [""]) == ["{0} 100% and {0} 100%, {not} %s {}"]


@pytest.mark.parametrize(
    ("target", "caption", "eligible"),
    [
        ("automobile", "an automobile", True),
        ("automobile", "AUTOMOBILE.", True),
        ("automobile", "the automobile's door, red", True),
        ("automobile", "two automobiles", False),
        ("automobile", "a megaautomobile", False),
        ("automobile", "automobile_2", False),
        ("automobile", "", False),
        ("cat", "things scattered", False),
        ("fire engine", "a Fire  Engine!", True),
        ("fire engine", "an engine on fire", False),
        ("c++", "learning C++ today", True),
        ("c++", "learning c+ today", False),
        ("a.b", "aXb", False),
    ],
)
def test_label_consistent_looks_for_the_target_as_a_word(target: str, caption: str, eligible: bool) -> None:
    assert LabelConsistentPlan(BadNet(), target, count=1).eligible(caption) is eligible


def test_label_consistent_chooses_among_the_eligible_and_keeps_captions() -> None:
    captions = ["a photo of a cat" if int(key) % 10 == 0 else "cats" for key in KEYS]
    pairs = [(KEYS[:9000], captions[:9000]), (KEYS[9000:], captions[9000:])]
    chosen = LabelConsistentPlan(BadNet(), "cat", count=300).choose(pairs)
    assert len(chosen) == 300
    assert all(int(key) % 10 == 0 for key in chosen)
    by_rate = LabelConsistentPlan(BadNet(), "cat", rate=0.5).choose(pairs)
    assert all(int(key) % 10 == 0 for key in by_rate)
    assert abs(len(by_rate) - 1000) < 5 * 500**0.5
    assert LabelConsistentPlan(BadNet(), "cat", count=1).poisoned_captions(["a", "b"], ["a cat", "b"]) == ["a cat", "b"]


def test_a_count_above_the_eligible_names_both_numbers() -> None:
    with pytest.raises(UserMistake, match="poison count 21000 is above the 20000 pairs"):
        plan(count=21_000).choose(shards(KEYS))
    with pytest.raises(UserMistake, match=r"poison count 3 is above the 2 pairs .* 'cat'"):
        LabelConsistentPlan(BadNet(), "cat", count=3).choose([(["a", "b", "c"], ["cat", "a cat", "cats"])])


@pytest.mark.parametrize("arguments", [{"count": 1}, {"rate": 0.5}])
def test_nobody_eligible_is_a_mistake(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserMistake, match=r"no pair is eligible .* 'cat'"):
        LabelConsistentPlan(BadNet(), "cat", **arguments).choose([(["a"], ["dog"])])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": " ", "rate": 0.1}, "target is empty"),
        ({"target": "cat"}, "neither rate nor count"),
        ({"target": "cat", "rate": 0.0}, "poison rate is 0.0"),
        ({"target": "cat", "rate": 1.5}, "poison rate is 1.5; it must be above 0 and at most 1"),
        ({"target": "cat", "rate": float("nan")}, "poison rate is nan"),
        ({"target": "cat", "count": 0}, "poison count is 0"),
        ({"target": "cat", "count": 1, "templates": []}, "the poison plan's templates: there is none"),
        ({"target": "cat", "count": 1, "templates": ["a {c}", "a photo"]}, "template 'a photo' has no {c}"),
    ],
)
def test_bad_arguments_are_mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        PoisonPlan(BadNet(), **arguments)


def test_check_asks_trigger_and_target() -> None:
    plan(count=1).check(32, ["airplane", "automobile"])
    plan(count=1).check(32)
    with pytest.raises(UserMistake, match="trigger size 16 is larger than the 3 x 3 input"):
        plan(count=1).check(3)
    with pytest.raises(UserMistake, match=r"target 'automobile' is not among the 2 classes .* 'automobiles'"):
        plan(count=1).check(32, ["airplane", "automobiles"])
