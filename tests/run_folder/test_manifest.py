"""``poison.json`` as plain data: what was written is read, and what was edited is refused.

Plans and hostile content are in tests/datamodules/poisoning/test_manifest.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.run_folder.manifest import MANIFEST, PlanRecord, describing, named_keys, read_plans, write_plans

PLANS = [
    PlanRecord("my.Plan", {"target": "dog"}, "my.Trigger", {"size": 4}, ["a", "é"]),
    PlanRecord("my.Plan", {"target": "cat"}, "my.Trigger", {}, ["b"]),
]


def test_what_was_written_is_read_though_no_class_is_known(tmp_path: Path) -> None:
    path = tmp_path / "run" / MANIFEST
    write_plans(PLANS, path)
    assert read_plans(path) == PLANS
    assert named_keys(path, "keys") == {"a", "é", "b"}


def test_what_was_edited_has_keys_but_no_plans(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST
    write_plans(PLANS, path)
    content = json.loads(path.read_text())
    content["plans"][0]["keys"].append("c")
    path.write_text(json.dumps(content))
    with pytest.raises(UserMistake, match=r"poison manifest .*poison\.json: its content does not fit its hash"):
        read_plans(path)
    assert named_keys(path, "keys") == {"a", "é", "b", "c"}


def test_an_error_of_whoever_makes_a_plan_of_it_names_the_file() -> None:
    message = r"run/poison\.json: it describes no plan of this release: it lacks 'size'"
    with pytest.raises(UserMistake, match=message), describing("run/poison.json"):
        PLANS[1].trigger_params["size"]
