"""The table of results: what is written is read back, whatever its names are."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.run_folder.results import COLUMNS, add_results, read_results

ROW = dict.fromkeys(COLUMNS, "0.1")


def test_columns_of_ones_own_stand_behind_the_others(tmp_path: Path) -> None:
    add_results(tmp_path, [ROW | {"seed": "1", "mine": "3"}])
    add_results(tmp_path, [ROW | {"seed": "2", "yours": "4", "mine": "5"}])
    header = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert header == f"{','.join(COLUMNS)},mine,yours"
    assert [(found["mine"], found["yours"]) for found in read_results(tmp_path)] == [("3", ""), ("5", "4")]


@pytest.mark.parametrize("name", ["=HYPERLINK(0)", "-1", "\tx", "'quoted", "a\x1b[2J", 'a,"b"\nc'])
def test_names_come_back_as_they_were_and_are_no_formulas(tmp_path: Path, name: str) -> None:
    rows = [ROW | {"dataset": name, "attack": name, "defence": name, "mine": "-0.5"}]
    for _ in range(2):  # the second time, the row is found and replaced
        add_results(tmp_path, rows)
    assert read_results(tmp_path) == rows
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    assert not cells["dataset"].startswith(("=", "-", "\t"))
    assert "\x1b" not in cells["attack"]
    assert cells["mine"] == "-0.5"


def test_a_table_of_more_rows_than_any_has_is_not_drawn(tmp_path: Path) -> None:
    row = ",".join(ROW.values())
    (tmp_path / "results.csv").write_text("\n".join([",".join(COLUMNS), *[row] * 2000]))
    assert len(read_results(tmp_path)) == 2000
    with (tmp_path / "results.csv").open("a") as file:
        file.write(f"\n{row}\n")
    with pytest.raises(UserMistake, match=r"results\.csv has 2,001 rows, and no more than 2,000 are read"):
        read_results(tmp_path)


@pytest.mark.parametrize("cell", ["0,5", "50%", "0.5 ", "", "nan", "1e999", "much\x1b[2J"])
def test_a_figure_that_is_no_number_is_reported(tmp_path: Path, cell: str) -> None:
    rows = [ROW, ROW | {"seed": "2", "clean_accuracy": cell, "mine": "0,5"}]
    add_results(tmp_path, rows)  # what a run writes is not asked
    if cell in ("0.5 ", "", "nan", "1e999"):
        assert read_results(tmp_path)[1]["clean_accuracy"] == cell
        return
    with pytest.raises(UserMistake, match=r"results\.csv: clean_accuracy of row 2 is '.*', not a number") as reported:
        read_results(tmp_path)
    assert "\x1b" not in str(reported.value)
