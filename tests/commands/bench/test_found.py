from __future__ import annotations

import json
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from untrigger.commands.bench.found import (
    FALSE_ALARM,
    FOUND,
    MISSED,
    NO_ALARM,
    PARTLY,
    found_rows,
    found_table,
    tally,
    targets_of,
    verdict,
)
from untrigger.commands.bench.grid import expand
from untrigger.commands.bench.specification import BenchSpec
from untrigger.commands.bench.tables import found_section


def poisoned(cell: str, *targets: str, success: float = 0.99) -> dict[str, Any]:
    plans = [{"class_path": "PoisonPlan", "init_args": {"target": target, "rate": 0.01}} for target in targets]
    rows = [{"attack_success_rate": str(success)} for _ in targets] or [{"attack_success_rate": ""}]
    return {"cell": cell, "defence": "none", "arguments": ["--data.poison", json.dumps(plans)], "results": rows}


def defended(parent: str, *named: str, precision: float | None = 1.0) -> dict[str, Any]:
    logged = {} if precision is None else {"suspects/precision": precision}
    rows = [{"attack_success_rate": "0.01"}]
    return {
        "cell": f"{parent}--UBT",
        "defence": "UBT",
        "parent": parent,
        "named": list(named),
        "logged": logged,
        "results": rows,
    }


@pytest.mark.parametrize(
    ("targets", "named", "precision", "expected"),
    [
        (["cat"], ["cat"], 1.0, FOUND),
        (["cat"], ["Cat"], 0.95, FOUND),
        (["school bus"], ["bus"], 1.0, FOUND),
        (["cat", "dog"], ["dog", "cat"], None, FOUND),
        (["cat"], ["cat"], 0.94, PARTLY),
        (["cat"], ["cat", "dog"], 1.0, PARTLY),
        (["cat", "dog"], ["dog"], 1.0, PARTLY),
        (["cat"], ["dog"], 0.0, MISSED),
        (["cat"], [], None, MISSED),
        ([], ["cat"], 0.0, FALSE_ALARM),
        ([], [], None, NO_ALARM),
    ],
)
def test_found_is_every_target_and_nothing_else(
    targets: list[str], named: list[str], precision: float | None, expected: str
) -> None:
    assert verdict(frozenset(targets), named, precision) == expected


@pytest.mark.parametrize("arguments", [[], ["--data.poison"], ["--data.poison", "{"], ["--data.poison", '[{"a": 1}]']])
def test_targets_that_a_record_does_not_say_are_not_guessed(arguments: list[str]) -> None:
    assert targets_of({"arguments": arguments}) is None


def test_a_clean_model_has_no_target() -> None:
    assert targets_of({"arguments": ["--data.poison", "null"]}) == frozenset()
    assert targets_of(poisoned("a", "cat", "dog")) == {"cat", "dog"}


def test_the_target_of_a_grid_s_own_cells_is_known() -> None:
    plan = {"class_path": "PoisonPlan", "init_args": {"target": "cat", "rate": 0.01, "trigger": "BadNet"}}
    content = {"name": "one", "attacks": {"BadNet": {"targets": ["dog", "deer"], "poison": plan}}, "twins": False}
    content["train"] = {"config": "poisoned_clip/cifar10.yaml"}
    parser = ArgumentParser()
    parser.add_class_arguments(BenchSpec, "spec")
    cells = expand(parser.instantiate(parser.parse_object({"spec": content})).spec)
    assert {cell.name: targets_of({"arguments": cell.arguments}) for cell in cells} == {
        "BadNet-dog-seed0": {"dog"},
        "BadNet-deer-seed0": {"deer"},
    }


def test_misses_come_first_and_weak_attacks_do_not_count() -> None:
    records = [
        poisoned("BadNet", "cat"),
        defended("BadNet", "cat"),
        poisoned("WaNet", "dog"),
        defended("WaNet", precision=None),
        poisoned("weak", "dog", success=0.4),
        defended("weak", precision=None),
        poisoned("clean"),
        defended("clean", precision=None),
        {"cell": "BadNet--CleanCLIP", "defence": "CleanCLIP", "parent": "BadNet", "results": [], "logged": {}},
    ]
    assert [(row["cell"], row["verdict"], row["weak"]) for row in found_rows(records)] == [
        ("BadNet--UBT", FOUND, ""),
        ("WaNet--UBT", MISSED, ""),
        ("weak--UBT", MISSED, "yes"),
        ("clean--UBT", NO_ALARM, ""),
    ]
    head, *rows = found_table(records)
    assert [row[0] for row in rows] == ["WaNet--UBT", "weak--UBT", "BadNet--UBT", "clean--UBT"]
    assert {len(row) for row in rows} == {len(head)}
    assert tally(records) == (
        "Found in 1 of 2 (9 to 91 %, Wilson's 95 % interval) poisoned models whose attack success is 50 % or more; "
        "false alarms in 0 of 1 (0 to 79 %, Wilson's 95 % interval) clean ones."
    )
    assert "| WaNet--UBT | dog | 99.0 | 1.0 | nothing |  | missed |" in found_section(records)
    assert found_table(records[:1]) == []
    assert found_section(records[:1]) == ""
