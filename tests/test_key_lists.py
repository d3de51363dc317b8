from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, PoisonPlan
from untrigger.datamodules.poisoning import Poison, write_manifest
from untrigger.key_lists import read_keys


def test_a_manifest_names_the_keys_of_all_its_plans(tmp_path: Path) -> None:
    plans = [PoisonPlan(BadNet(), "dog", count=2), PoisonPlan(BadNet(seed=1), "cat", count=1)]
    write_manifest(Poison(plans, [["k2", "k1"], ["k7"]]), tmp_path / "poison.json")
    assert read_keys(str(tmp_path / "poison.json"), "model.given", lambda _: False) == {"k1", "k2", "k7"}


@pytest.mark.parametrize("content", ["[1, 2]", "{}", '{"plans": [3]}', "{", "[" * 100_000])
def test_json_of_another_kind_is_refused_in_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(UserMistake, match=r"^model\.given: .* is no list of keys \(\w+\)$"):
        read_keys(str(tmp_path / "other.json"), "model.given", lambda _: True)
