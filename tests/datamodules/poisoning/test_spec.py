from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, Blended, CoverPlan, PoisonPlan, WaNet
from untrigger.datamodules.poisoning import Poison, attacks_by_name, plans_of, poison_of, write_manifest
from untrigger.datamodules.shards import ShardSet


def plan(count: int = 2, size: int = 4) -> PoisonPlan:
    return PoisonPlan(BadNet(size=size), "star", count=count)


def test_a_plan_a_list_a_manifest_and_nothing_are_lists_of_plans(tmp_path: Path) -> None:
    one, two = plan(), plan(3)
    write_manifest(Poison([one, two]), tmp_path / "poison.json")
    assert plans_of(one) == [one]
    assert plans_of([one, two]) == [one, two]
    assert [found.params for found in plans_of(str(tmp_path / "poison.json"))] == [one.params, two.params]
    assert plans_of(None) == []


def test_attacks_are_numbered_and_covers_are_none() -> None:
    plans = [plan(), PoisonPlan(Blended(), "star", count=1), CoverPlan(WaNet(), "star", count=1), plan(3)]
    assert attacks_by_name(plans) == {"BadNet": plans[0], "Blended": plans[1], "BadNet-2": plans[3]}


def test_plans_choose_and_a_manifest_names(write_pairs: object, tmp_path: Path) -> None:
    shards = ShardSet(write_pairs([6, 6]))  # type: ignore[operator]
    chosen = poison_of([plan(), plan(3)], shards, 32)
    assert chosen is not None
    assert [len(keys) for keys in chosen.keys] == [2, 3]
    write_manifest(chosen, tmp_path / "poison.json")
    again = poison_of(str(tmp_path / "poison.json"), ShardSet(shards.paths[:1]), 32)
    assert again is not None
    assert again.keys == [[key for key in keys if key < "k0006"] for keys in chosen.keys]
    assert poison_of(None, shards, 32) is None


class Unread:
    """Data that must not be looked at."""

    def keys(self) -> None:
        raise AssertionError

    captions = keys


def test_what_does_not_fit_is_reported_before_the_pass_over_the_data(tmp_path: Path) -> None:
    large = plan(size=40)
    write_manifest(Poison([large], [["k"]]), tmp_path / "poison.json")
    for spec in (large, [large], str(tmp_path / "poison.json")):
        with pytest.raises(UserMistake, match="trigger size 40 is larger than the 32 x 32 input"):
            poison_of(spec, Unread(), 32)  # type: ignore[arg-type]
