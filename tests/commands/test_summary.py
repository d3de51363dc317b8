from __future__ import annotations

from typing import Any

import pytest

from untrigger.commands.summary import MEASURES, best, best_defences, own_measures, summarise


def record(attack: str, defence: str, seed: int | str = 0, **figures: Any) -> dict[str, Any]:
    return {"dataset": "cifar10", "attack": attack, "defence": defence, "seed": seed, **figures}


def test_mean_and_sample_standard_deviation_by_hand() -> None:
    (row,) = summarise(
        [
            record("BadNet", "none", 0, clean_accuracy=0.7, seconds="10.0", peak_memory_mb=900),
            record("BadNet", "none", "1", clean_accuracy="0.8", seconds="", peak_memory_mb=None),
            record("BadNet", "none", 2, clean_accuracy=0.9, seconds="nan", samples_seen="many"),
        ]
    )
    assert (row.dataset, row.attack, row.defence, row.seeds) == ("cifar10", "BadNet", "none", ("0", "1", "2"))
    accuracy = row.figures["clean_accuracy"]
    assert accuracy.mean == pytest.approx(0.8)
    assert accuracy.spread == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2), not / 3
    assert accuracy.n == 3
    assert tuple(row.figures["seconds"]) == (10.0, None, 1)
    assert set(row.figures) == {"clean_accuracy", "seconds", "peak_memory_mb"} < set(MEASURES)


def test_rows_come_in_the_order_of_first_appearance() -> None:
    rows = summarise(
        [record("B", "none"), record("A", "UBT"), record("B", "none", 1), record("A", "none"), record("B", "UBT")]
    )
    assert [(row.attack, row.defence, row.seeds) for row in rows] == [
        ("B", "none", ("0", "1")),
        ("A", "UBT", ("0",)),
        ("A", "none", ("0",)),
        ("B", "UBT", ("0",)),
    ]


def test_best_is_among_the_defences_of_an_attack() -> None:
    rows = summarise(
        [
            record("A", "none", clean_accuracy=0.99, attack_success_rate=0.0),
            record("A", "X", clean_accuracy=0.7, attack_success_rate=0.1),
            record("A", "Y", clean_accuracy=0.72, attack_success_rate=0.3),
            record("A", "Z", attack_success_rate=0.1),
            record("B", "X", clean_accuracy=0.1, attack_success_rate=0.9),
        ]
    )
    assert best(rows, "clean_accuracy", largest=True) == {2}
    assert best(rows, "attack_success_rate", largest=False) == {1, 3}
    # .6 against .42; Z has no accuracy, and B has nothing to compare.
    assert best_defences(rows) == {1}


def test_a_measure_of_one_s_own_is_aggregated_like_the_others() -> None:
    common = {"dataset": "d", "attack": "BadNet", "defence": "none", "clean_accuracy": "0.5", "stale": "1"}
    records = [common | {"seed": seed, "second_guess": value} for seed, value in (("0", "0.25"), ("1", "0.35"))]
    rows = summarise(records)
    assert own_measures(rows) == ["second_guess"]
    assert rows[0].mean("second_guess") == pytest.approx(0.3)
