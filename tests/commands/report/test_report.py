from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from untrigger.callbacks.artefacts.figures import trigger_gallery
from untrigger.commands.report.command import report
from untrigger.commands.report.document import write_report
from untrigger.commands.report.drawing import to_svg
from untrigger.commands.report.figures import Point, against_success, over_training
from untrigger.commands.report.pictures import data_uri
from untrigger.commands.report.runs import read_runs
from untrigger.contracts import UserMistake
from untrigger.run_folder.results import COLUMNS, add_results

HOSTILE = "<script>alert(1)</script>$\\frac{"


def row(
    attack: str = "BadNet", defence: str = "none", dataset: str = "cifar10", success: str = "0.828", seed: str = "0"
) -> list[str]:
    return [dataset, attack, defence, seed, "0.7412", success, "0.0163", "nan", "3725.2", "120000"]


def make_run(folder: Path, rows: Sequence[Sequence[str]]) -> Path:
    add_results(folder, [dict(zip(COLUMNS, cells, strict=True)) for cells in rows])
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
        """The words of the table of results."""
        start = self.words.index("Runs, by seed") + 1
        end = next(index for index, word in enumerate(self.words) if word.startswith("Means and"))
        return [word.replace("\N{EN DASH}", "-") for word in self.words[start:end]]


def page(runs: Sequence[Path], out: Path) -> _Page:
    write_report(runs, out)
    return _Page(out.read_text(encoding="utf-8"))


def test_table_shows_each_row_in_percent(tmp_path: Path) -> None:
    run = make_run(tmp_path / "first", [row(), ["cifar10", "none", "CleanCLIP", "3", "0.7", "", "", "", "59.7", "7"]])
    # "-": what was not measured, or is not a number.
    assert page([run], tmp_path / "out" / "report.html").cells() == [
        *["BadNet", "on cifar10"],
        *["no defence", "82.8 %", "74.1 %", "1.6 %", "-", "1 h 02 min", "120,000", "0"],
        *["No attack measured", "on cifar10"],
        *["CleanCLIP", "-", "70.0 %", "-", "-", "1 min 00 s", "7", "3"],
    ]


def test_table_shows_mean_and_spread_over_seeds_and_marks_the_best(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"r{index}", [row(defence=defence, success=success, seed=seed)])
        for index, (defence, success, seed) in enumerate(
            [("CleanCLIP", "0.10", "0"), ("CleanCLIP", "0.14", "1"), ("UBT", "0.01", "0")]
        )
    ]
    found = page(runs, tmp_path / "report.html")
    cells = found.cells()
    assert cells[2:4] == ["CleanCLIP", "12.0 ± 2.8 %"]  # sqrt(2 * 2^2)
    links = {attributes["title"]: attributes["href"] for tag, attributes in found.tags if "title" in attributes}
    assert list(links) == ["r0", "r1", "r2"]
    assert len(set(links.values())) == 3
    assert cells[cells.index("12.0 ± 2.8 %") : cells.index("UBT ★")][-3:] == ["0", ",", "1"]
    assert "UBT ★" in cells
    marked = [attributes for _, attributes in found.tags if "best" in (attributes.get("class") or "").split()]
    assert {"class": "bar best", "style": "--share: 0.010"} in marked
    # Both have the same clean accuracy.
    assert len(marked) == 3


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
    (runs[1] / "suspects.csv").write_text(f"key,{HOSTILE}\n{HOSTILE},{'x' * 500}\n")
    cell = {"cell": "b", "attack": HOSTILE, "defence": HOSTILE, "command": HOSTILE}
    (runs[1] / "cell.json").write_text(json.dumps(cell))
    (runs[0] / "config.yaml").write_text(json.dumps({"model": {"init_args": {"init_from": HOSTILE}}}))
    found = page(runs, tmp_path / "report.html")
    assert not {"script", "b>b"} & {tag for tag, _ in found.tags}
    # In the table, the headings, the suspects, the command, the origin, the heat map, the scatter and the curves.
    assert sum(HOSTILE in word for word in found.words) >= 15
    assert "a&<b>b" in found.words
    assert any("_hidden" in word for word in found.words[found.words.index("All models at a glance") :])
    assert "x" * 119 + "…" in found.words
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|pdf)", name) for name in figures)


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row()])
    clean = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    trigger_gallery(clean, {"BadNet": clean + 1}).savefig(run / "gallery.png")
    write_metrics(run, 0, "step,train/loss,val/clean_accuracy\n1,2.0,\n2,1.5,\n2,,0.5\n")
    found = page([run], tmp_path / "report.html")
    assert [tag for tag, _ in found.tags].count("svg") == 1
    # Links point to parts of the page.
    links = [
        value or ""
        for tag, attributes in found.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "srcset"} or (tag == "link" and name == "rel")
    ]
    assert all(link.startswith(("data:image/png;base64,iVBOR", "#")) for link in links)
    assert sum(link.startswith("data:") for link in links) == 1
    assert not re.search(r"@import|url\((?!#)", (tmp_path / "report.html").read_text(encoding="utf-8"))
    anchors = {attributes.get("id") for _, attributes in found.tags}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_each_figure_is_saved_for_a_paper_under_a_stable_name(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "Run 0", [row()]), make_run(tmp_path / "Run-0", [row(defence="UBT", success="0.1")])]
    for run in runs:
        write_metrics(run, 0, "step,train/loss\n1,2.0\n2,1.5\n")
    write_report(runs, tmp_path / "report.html")
    figures = {path.name: path.read_bytes()[:4] for path in (tmp_path / "figures").iterdir()}
    names = ("accuracy-against-success", "heat-map-cifar10", "training-run-0", "training-run-0-2")
    assert figures == {
        f"{name}.{end}": start for name in names for end, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"))
    }


def test_later_session_counts_and_runs_inside_do_not(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row()])
    write_metrics(run, 9, "step,epoch,val/clean_accuracy\n10,0,0.1\n20,1,0.2\nnonsense,x\n")
    write_metrics(run, 10, "step,epoch,val/clean_accuracy\n20,1,0.3\n30,2,nan\n")
    write_metrics(make_run(run / "inner", [row()]), 0, "step,val/clean_accuracy\n40,0.9\n")
    (found,) = read_runs([run])
    assert found.curves["val/clean_accuracy"] == [(10, 0.1), (20, 0.3)]


def test_single_attack_keeps_its_name_and_several_have_theirs(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one", [row()]), make_run(tmp_path / "two", [row(), row("Blended")])
    write_metrics(one, 0, "step,val/attack_success_rate\n1,0.5\n")
    write_metrics(two, 0, "step,val/attack_success_rate,val/attack_success_rate/WaNet\n1,0.5,0.5\n")
    assert "attack success, BadNet" in page([one], tmp_path / "report.html").words
    words = page([two], tmp_path / "report.html").words
    assert [word for word in words if word.startswith("attack success, ")] == ["attack success, WaNet"]


def test_suspects_stand_with_their_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row(defence="UBT")])
    (run / "suspects.csv").write_text("key,caption\n" + "".join(f"k{number},a star\n" for number in range(30)))
    Image.new("RGB", (8, 8)).save(run / "suspects.png")
    found = page([run], tmp_path / "report.html")
    assert "k9" in found.words
    assert "k10" not in found.words
    assert any(attributes.get("alt") == "The pairs that this defence suspected" for _, attributes in found.tags)


def test_scatter_joins_each_model_to_the_one_it_started_from() -> None:
    figure = against_success(
        [
            Point("BadNet", "none", 0.8, 0.7),
            Point("BadNet", "UBT", 0.1, 0.6, before=(0.8, 0.7)),
            Point("Blended", "UBT", 0.2, 0.5),
        ],
        "clean accuracy",
    )
    lines = [[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]
    assert [line for line in lines[0] if len(line) == 2] == [[[80.0, 70.0], [10.0, 60.0]]]
    assert lines[1] == [[[20.0, 50.0]]]
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["no defence", "UBT"]


def test_the_floor_of_an_attack_is_a_line() -> None:
    figure = against_success(
        [Point("A", "none", 0.8, 1.2, floor=0.1), Point("A", "x", 0.3, 0.5, floor=0.2)], "recovered"
    )
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([15.0, 15.0])
    assert figure.axes[0].get_ylim()[1] >= 120  # more may be right than the twin has right
    assert figure.axes[0].get_yticks().max() > 100


def test_floor_and_what_is_recovered_are_shown_where_a_twin_was_measured(tmp_path: Path) -> None:
    more = {"attack_success_floor": "0.021", "triggered_accuracy_ceiling": "0.79", "recovered": "0.25"}
    for name, defence, recovered in (("one", "none", "0.25"), ("two", "CleanCLIP", "0.98"), ("three", "UBT", "0.42")):
        cells = dict(zip(COLUMNS, row(defence=defence), strict=True)) | more | {"recovered": recovered}
        add_results(tmp_path / name, [cells])
    found = page([tmp_path / name for name in ("one", "two", "three")], tmp_path / "report.html")
    cells = found.cells()
    assert cells[cells.index("CleanCLIP ★") + 1 :][:5] == ["82.8 %", "74.1 %", "2.1 %", "98.0 %", "79.0 %"]
    assert "Recovered" in found.words
    assert (tmp_path / "figures" / "recovered-against-success.png").exists()
    # The best of the two defences, beside attack success and clean accuracy, in which they are equal.
    assert sum(attributes.get("class") == "best" for _, attributes in found.tags) == 3


def test_models_are_compared_only_where_there_are_two(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", [row(), row("Blended"), row(defence="UBT", success="")])
    page([one], tmp_path / "report.html")
    assert not (tmp_path / "figures" / "accuracy-against-success.png").exists()
    other = make_run(tmp_path / "other", [row(defence="CleanCLIP", success="0.04")])
    page([one, other], tmp_path / "report.html")
    assert (tmp_path / "figures" / "accuracy-against-success.png").exists()


def test_figures_take_the_colour_of_the_page_and_are_repeatable() -> None:
    def draw() -> str:
        figure = over_training([(1, 0.1), (2, 0.7)], {"BadNet": [(1, 0.0), (2, 0.9)]}, [(1, 2.0), (2, 1.0)])
        assert figure is not None
        return to_svg(figure)

    text = draw()
    ElementTree.fromstring(text)
    assert "fill: currentColor" in text
    assert not re.search(r"(fill|stroke): #(0{6}|f{6})", text)
    assert text == draw()


def test_pictures_are_made_small_and_hostile_ones_left_out(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (900, 3000, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    Image.fromarray(noise.numpy()).save(tmp_path / "large.png")
    large = data_uri(tmp_path / "large.png")
    assert large is not None
    assert large.startswith("data:image/webp;base64,")
    assert len(large) < (tmp_path / "large.png").stat().st_size / 4
    (tmp_path / "script.png").write_text("<svg onload='alert(1)'>")
    Image.new("RGB", (4, 4)).save(tmp_path / "jpeg.png", "JPEG")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert [data_uri(tmp_path / name) for name in ("script.png", "jpeg.png", "bomb.png")] == [None] * 3


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


def test_no_run_and_unwritable_folder_are_clear_lines(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="no run folder is given"):
        report([])
    with pytest.raises(UserMistake, match="cannot be written"):
        report([str(make_run(tmp_path / "run", [row()]))], str(tmp_path))


def test_nothing_but_an_earlier_page_is_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row()])
    results = (run / "results.csv").read_bytes()
    with pytest.raises(UserMistake, match=r"results\.csv is there already and is no HTML page: give a new file"):
        report([str(run)], str(run / "results.csv"))
    assert (run / "results.csv").read_bytes() == results
    assert not (run / "figures").exists()
    for _ in range(2):
        report([str(run)], str(tmp_path / "report.html"))


def test_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    report([str(make_run(tmp_path / "run", [row()]))], str(out))
    assert capsys.readouterr().out.startswith(f"wrote {out}, and its figures")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("accuracy", [1.0, 0.97, 0.5])
def test_no_accuracy_above_100_percent_is_on_the_scale(accuracy: float) -> None:
    points = [Point("BadNet", "none", 0.9, accuracy), Point("BadNet", "UBT", 0.0, accuracy)]
    (axes,) = against_success(points, "clean accuracy").axes
    bottom, top = axes.get_ylim()
    ticks = axes.get_yticks()
    assert len(ticks) >= 3
    assert ticks.min() >= bottom
    assert ticks.max() <= 100
    assert bottom < 100 * accuracy < top
