from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from untrigger.callbacks.figures import trigger_gallery
from untrigger.callbacks.results_table import COLUMNS, add_results
from untrigger.commands.report import report, write_report
from untrigger.commands.report_figures import accuracy_against_success, rates_over_training, to_svg
from untrigger.contracts import UserMistake

HOSTILE = "<script>alert(1)</script>$\\frac{"


def row(attack: str = "BadNet", defence: str = "none", dataset: str = "cifar10", success: str = "0.828") -> list[str]:
    return [dataset, attack, defence, "0", "0.7412", success, "0.0163", "nan", "3725.2", "120000"]


def make_run(folder: Path, rows: Sequence[Sequence[str]]) -> Path:
    add_results(folder / "results.csv", [dict(zip(COLUMNS, cells, strict=True)) for cells in rows])
    return folder


def write_metrics(folder: Path, version: int, text: str) -> None:
    log = folder / "csv" / f"version_{version}"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text(text)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def cells(self) -> list[str]:
        start = self.words.index("Training samples") + 1
        end = next(place for place, word in enumerate(self.words) if word.startswith("A dash means"))
        return self.words[start:end]


def page(runs: Sequence[Path], out: Path) -> _Page:
    write_report(runs, out)
    return _Page(out.read_text(encoding="utf-8"))


def test_table_shows_each_row_in_percent(tmp_path: Path) -> None:
    run = make_run(tmp_path / "first", [row(), ["cifar10", "none", "CleanCLIP", "3", "0.7", "", "", "", "59.7", "7"]])
    # "-": what was not measured, or is not a number.
    assert [cell.replace("\N{EN DASH}", "-") for cell in page([run], tmp_path / "out" / "report.html").cells()] == [
        *["first", "cifar10", "BadNet", "none", "0", "74.1 %", "82.8 %", "1.6 %", "-", "1 h 02 min", "120,000"],
        *["first", "cifar10", "none", "CleanCLIP", "3", "70.0 %", "-", "-", "-", "1 min 00 s", "7"],
    ]


def test_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a&<b>b", [row(HOSTILE, "none", HOSTILE), row("_hidden", HOSTILE, "猫\x1b[31m")]),
        make_run(tmp_path / "b", [row(HOSTILE, HOSTILE, HOSTILE)]),
    ]
    write_metrics(
        runs[0],
        0,
        f"step,val/clean_accuracy,val/attack_success_rate/{HOSTILE},val/attack_success_rate/B\n1,0,0.3,0.4\n",
    )
    found = page(runs, tmp_path / "report.html")
    assert not {"script", "b>b"} & {tag for tag, _ in found.tags}
    # In the table, in the scatter's two legends and in the legend of the curves.
    assert sum(HOSTILE in word for word in found.words) >= 8
    assert found.cells()[0] == "a&<b>b"
    assert any("_hidden" in word for word in found.words[found.words.index("All models at a glance") :])


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row()])
    clean = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    trigger_gallery(clean, {"BadNet": clean + 1}).savefig(run / "gallery.png")
    write_metrics(run, 0, "step,train/loss,val/clean_accuracy\n1,2.0,\n2,1.5,\n2,,0.5\n")
    found = page([run], tmp_path / "report.html")
    assert [tag for tag, _ in found.tags].count("svg") == 2
    # Inside an SVG element, links point to its own definitions.
    links = [
        value or ""
        for tag, attributes in found.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset"} or (tag == "link" and name == "rel")
    ]
    assert all(link.startswith(("data:image/png;base64,iVBOR", "#")) for link in links)
    assert sum(link.startswith("data:") for link in links) == 1
    assert not re.search(r"@import|url\((?!#)", (tmp_path / "report.html").read_text(encoding="utf-8"))


def test_later_session_counts_and_runs_inside_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", [row()])
    write_metrics(run, 9, "step,epoch,val/clean_accuracy\n10,0,0.1\n20,1,0.2\nnonsense,x\n")
    write_metrics(run, 10, "step,epoch,val/clean_accuracy\n20,1,0.3\n30,2,nan\n")
    write_metrics(make_run(run / "inner", [row()]), 0, "step,val/clean_accuracy\n40,0.9\n")
    drawn = []

    def record(accuracy: list[tuple[int, float]], success: dict[str, list[tuple[int, float]]]) -> object:
        drawn.append((accuracy, success))
        return rates_over_training(accuracy, success)

    monkeypatch.setattr("untrigger.commands.report.rates_over_training", record)
    write_report([run], tmp_path / "report.html")
    assert drawn == [([(10, 0.1), (20, 0.3)], {})]


def test_single_attack_keeps_its_name_and_several_have_theirs(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one", [row()]), make_run(tmp_path / "two", [row(), row("Blended")])
    write_metrics(one, 0, "step,val/attack_success_rate\n1,0.5\n")
    write_metrics(two, 0, "step,val/attack_success_rate,val/attack_success_rate/WaNet\n1,0.5,0.5\n")
    assert "attack success, BadNet" in page([one], tmp_path / "report.html").words
    words = page([two], tmp_path / "report.html").words
    assert [word for word in words if word.startswith("attack success, ")] == ["attack success, WaNet"]


def test_scatter_joins_each_defence_to_the_model_before_it() -> None:
    figure = accuracy_against_success(
        [("BadNet", "none", 0.8, 0.7), ("BadNet", "UBT", 0.1, 0.6), ("Blended", "UBT", 0.2, 0.5)]
    )
    segments = [line.get_xydata().tolist() for line in figure.axes[0].lines if len(line.get_xydata()) == 2]
    assert segments == [[[80.0, 70.0], [10.0, 60.0]]]
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["BadNet", "Blended", "no defence", "UBT"]


def test_scatter_stands_only_where_models_can_be_compared(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", [row(), row("Blended"), row(defence="UBT", success="")])
    assert "All models at a glance" not in page([one], tmp_path / "report.html").words
    other = make_run(tmp_path / "other", [row(defence="CleanCLIP", success="0.04")])
    assert "All models at a glance" in page([one, other], tmp_path / "report.html").words


def test_figures_take_the_colour_of_the_page_and_are_repeatable() -> None:
    def draw() -> str:
        return to_svg(rates_over_training([(1, 0.1), (2, 0.7)], {"BadNet": [(1, 0.0), (2, 0.9)]}))

    text = draw()
    ElementTree.fromstring(text)
    assert "fill: currentColor" in text
    assert not re.search(r"(fill|stroke): #(0{6}|f{6})", text)
    assert text == draw()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing", r"missing does not exist: give folders that hold a results\.csv"),
        (lambda folder: folder, r"holds no results\.csv with a row"),
    ],
)
def test_run_that_is_not_there_is_one_clear_line(tmp_path: Path, make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserMistake, match=message) as mistake:
        report([str(make(tmp_path))], str(tmp_path / "report.html"))
    assert "\n" not in str(mistake.value)
    assert not (tmp_path / "report.html").exists()


def test_no_run_and_unwritable_place_are_clear_lines(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="no run folder is given"):
        report([])
    with pytest.raises(UserMistake, match="cannot be written"):
        report([str(make_run(tmp_path / "run", [row()]))], str(tmp_path))


def test_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    report([str(make_run(tmp_path / "run", [row()]))], str(out))
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
