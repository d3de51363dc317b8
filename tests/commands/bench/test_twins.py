from __future__ import annotations

from untrigger.commands.bench.twins import beside_rebound, beside_twin

ROW = {
    "dataset": "d",
    "attack": "BadNet",
    "defence": "UBT",
    "attack_success_rate": "0.01",
    "non_target_triggered_accuracy": "0.6",
}
TWIN = ROW | {"defence": "none", "attack_success_rate": "0.02", "non_target_triggered_accuracy": "0.75"}


def twin_columns(row: dict[str, str]) -> tuple[str | None, ...]:
    names = ("attack_success_floor", "triggered_accuracy_ceiling", "recovered")
    return tuple(row.get(name) for name in names)


def test_floor_ceiling_and_the_share_of_it_stand_behind_a_row() -> None:
    (row,) = beside_twin([ROW], {"results": [TWIN | {"attack": "Blended"}, TWIN]})
    assert row == ROW | {"attack_success_floor": "0.02", "triggered_accuracy_ceiling": "0.75", "recovered": "0.8"}


def test_rows_of_an_older_release_have_a_floor_alone() -> None:
    old = {name: text for name, text in ROW.items() if name != "non_target_triggered_accuracy"}
    assert twin_columns(beside_twin([old], {"results": [TWIN]})[0]) == ("0.02", "0.75", "")
    assert twin_columns(beside_twin([ROW], {"results": [old]})[0]) == ("0.01", "", "")
    assert twin_columns(beside_twin([ROW], {"results": [TWIN | {"non_target_triggered_accuracy": "0"}]})[0]) == (
        "0.02",
        "0",
        "",
    )


def test_other_data_no_attack_and_a_head_have_none() -> None:
    rows = [ROW, ROW | {"defence": "UBT-head"}, ROW | {"dataset": "e"}, ROW | {"attack": "none"}]
    twin = {"results": [TWIN, TWIN | {"attack": "none"}]}
    assert [twin_columns(row)[0] for row in beside_twin(rows, twin)] == ["0.02", None, None, None]
    assert beside_twin(rows, None) == rows


def test_the_highest_success_of_a_finetuning_afterwards_stands_beside_its_attack() -> None:
    rows = [ROW, ROW | {"attack": "Blended"}, ROW | {"defence": "UBT-head"}]
    several = {"highest": {"val/attack_success_rate": 0.5, "val/attack_success_rate/BadNet": 0.25}}
    single = {"highest": {"val/attack_success_rate": 0.125}}
    found = beside_rebound(rows, several, single)
    assert [(row.get("rebound"), row.get("rebound_floor")) for row in found] == [
        ("0.25", "0.125"),
        (None, "0.125"),
        (None, None),
    ]
    assert beside_rebound(rows, {"results": []}, None) == rows
