from __future__ import annotations

from untrigger.commands.bench.tables import labelled_rows, latex_table, markdown_table
from untrigger.commands.summary import summarise


def record(attack: str, defence: str, seed: int, accuracy: float, success: float) -> dict[str, object]:
    """A record with one row of results."""
    row = {
        "dataset": "d",
        "attack": "BadNet",
        "defence": "none",
        "seed": str(seed),
        "clean_accuracy": str(accuracy),
        "attack_success_rate": str(success),
        "clean_target_rate": "",
        "triggered_accuracy": "",
        "seconds": "10",
        "samples_seen": "2000",
    }
    return {"attack": attack, "defence": defence, "seed": seed, "results": [row], "peak_memory_mb": 900}


def lines_of(records: list[dict[str, object]]) -> list[list[str]]:
    """The cells of the Markdown table's rows."""
    table = markdown_table(summarise(labelled_rows(records)))
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]


def test_mean_and_sample_standard_deviation_over_seeds() -> None:
    (line,) = lines_of([record("a", "none", seed, ca, 1.0) for seed, ca in ((0, 0.80), (1, 0.82), (2, 0.84))])
    assert line == ["a", "none", "0, 1, 2", "82.0 ± 2.0", "100.0 ± 0.0", "", "10 ± 0", "2,000 ± 0", "900 ± 0"]


def test_what_a_defence_has_found_has_columns_where_any_has_found_something() -> None:
    found = record("a", "UBT", 0, 0.8, 0.0) | {"logged": {"suspects/roc_auc": 0.9987, "suspects/precision": 0.5}}
    records = [record("a", "none", 0, 0.82, 1.0), found | {"logged": {**found["logged"], "ubt/alarm": 1.0}}]
    assert [line[6:9] for line in lines_of(records)] == [["", "", ""], ["100.0", "99.9", "50.0"]]
    table = markdown_table(summarise(labelled_rows(records)))
    assert "| clean target rate (%) | alarms (%) | ROC AUC (%) | precision (%) | seconds |" in table


def test_what_a_twin_has_stands_beside_success_where_any_was_measured() -> None:
    kept, lost, unknown = record("a", "x", 0, 0.8, 0.0), record("a", "y", 0, 0.8, 0.0), record("a", "z", 0, 0.8, 0.0)
    for each, recovered in ((kept, "0.97"), (lost, "0.3")):
        twin = {"attack_success_floor": "0.02", "triggered_accuracy_ceiling": "0.75", "recovered": recovered}
        each["results"] = [each["results"][0] | twin]  # type: ignore[index]
    assert [line[6:9] for line in lines_of([kept, lost, unknown])] == [
        ["2.0", "**97.0**", "75.0"],
        ["2.0", "30.0", "75.0"],
        ["", "", ""],
    ]
    table = latex_table(summarise(labelled_rows([kept])))
    assert "clean target rate (\\%) & ASR floor (\\%) & recovered (\\%) & ceiling (\\%) & seconds" in table


def test_the_seed_of_a_stale_run_is_marked() -> None:
    fresh, stale = record("a", "x", 0, 0.8, 0.0), record("a", "x", 1, 0.8, 0.0)
    stale["results"] = [stale["results"][0] | {"stale": "stale"}]  # type: ignore[index]
    assert lines_of([fresh, stale])[0][2] == "0, 1 (stale)"


def test_one_seed_has_no_spread() -> None:
    assert lines_of([record("a", "none", 0, 0.8, 1.0)])[0][3:5] == ["80.0", "100.0"]


def test_the_best_defence_of_an_attack_is_marked_and_the_poisoned_model_never() -> None:
    records = [
        record("a", "none", 0, 0.9, 0.0),
        record("a", "x", 0, 0.8, 0.2),
        record("a", "y", 0, 0.7, 0.1),
        record("b", "x", 0, 0.1, 0.9),
        record("b", "y", 0, 0.2, 0.95),
    ]
    assert [line[3:5] for line in lines_of(records)] == [
        ["90.0", "0.0"],
        ["**80.0**", "20.0"],
        ["70.0", "**10.0**"],
        ["10.0", "**90.0**"],
        ["**20.0**", "95.0"],
    ]


def test_rates_of_one_trigger_are_told_apart_by_the_labels_of_the_grid() -> None:
    assert [
        line[0] for line in lines_of([record(label, "none", 0, 0.8, 1.0) for label in ("BadNet-1%", "BadNet-3%")])
    ] == [
        "BadNet-1%",
        "BadNet-3%",
    ]


def test_a_head_has_a_row_beside_its_defence() -> None:
    supervised = record("a", "supervised", 0, 0.8, 0.1)
    row = supervised["results"][0]  # type: ignore[index]
    supervised["results"] = [row | {"defence": f"SupervisedFinetune{more}"} for more in ("", "-head")]
    assert [line[1] for line in lines_of([supervised])] == ["supervised", "supervised-head"]


def test_several_attacks_of_a_run_have_a_row_each() -> None:
    both = record("two", "none", 0, 0.8, 0.1)
    both["results"] = [both["results"][0] | {"attack": attack} for attack in ("BadNet", "Blended")]  # type: ignore[index]
    assert [line[0] for line in lines_of([both])] == ["two: BadNet", "two: Blended"]


def test_names_are_text_not_markup() -> None:
    rows = summarise(labelled_rows([record("a_1%|*", "none", 0, 0.8, 1.0)]))
    assert "a\\_1%\\|\\*" in markdown_table(rows)
    assert "a\\_1\\%|{*}" in latex_table(rows)
    assert "80.0 & 100.0" in latex_table(rows)
    rows = summarise(labelled_rows([record("\\input{x}\x1b[2J\n", "<b>\u202e", 0, 0.8, 1.0)]))
    assert "\\textbackslash{}input\\{x\\} {[}2J  & <b> " in latex_table(rows)
    assert "| \\\\input{x} \\[2J  | \\<b\\>  |" in markdown_table(rows)
