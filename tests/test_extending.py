"""An outsider's study: the files and the commands of the pages on extending, in an otherwise empty folder."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typist import SMALL, Typist, blocks, commands, script, shortened, write_small_cifar10

PAGES = Path(__file__).parents[1] / "docs" / "extending"
PARTS = ("trigger", "poison_plan", "evidence", "detector", "defence", "phases", "metric")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    folder = tmp_path_factory.mktemp("reader")
    write_small_cifar10(folder / "cifar10")
    with Typist(folder, tmp_path_factory.mktemp("said") / "log") as typist:
        yield typist


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files() -> dict[str, str]:
    """The complete file of each page, by the name that the page gives it."""
    found = {}
    for part in PARTS:
        text, (code,) = (PAGES / f"{part}.md").read_text(), blocks(PAGES / f"{part}.md", "python")
        (name,) = [
            name
            for name in ("my_trigger", "my_plan", "my_evidence", "my_detector", "my_defence", "my_phases", "my_metric")
            if f"as `{name}.py`" in text
        ]
        found[name] = code
    return found


def test_the_files_of_the_pages_run_with_their_commands(reader: Typist) -> None:
    for name, code in files().items():
        (reader.folder / f"{name}.py").write_text(code)
    for part in (PARTS[0], "index", *PARTS[1:]):
        for command in commands(blocks(PAGES / f"{part}.md", "sh")[0]):
            less = [*SMALL, "--model.epochs", "1"] if part == "phases" else shortened(command)
            reader.types(command, *less)
    runs = reader.folder / "runs"
    assert {path.name for path in runs.iterdir()} == {
        "corner",
        "long-captions",
        "corner-grey",
        "corner-ranked",
        "corner-push-away",
        "corner-half",
    }
    assert [row["attack"] for run in ("corner", "corner-grey", "corner-push-away") for row in rows(runs / run)] == [
        "Corner"
    ] * 3
    assert [
        rows(runs / run)[0]["defence"] for run in ("corner", "long-captions", "corner-push-away", "corner-half")
    ] == [
        *("none", "none", "PushAway", "HalfCLIP"),
    ]
    assert 0 <= float(rows(runs / "corner")[0]["top_three_accuracy"]) <= 1
    (plan,) = json.loads((runs / "long-captions" / "poison.json").read_text())["plans"]
    assert plan["params"]["least_words"] == 5
    assert len(plan["keys"]) > 0
    (trigger,) = json.loads((runs / "corner" / "poison.json").read_text())["plans"]
    assert trigger["trigger"] == {"class": "my_trigger.Corner", "params": {"size": 6, "grey": 255}}
    with (runs / "corner-ranked" / "detection.csv").open(newline="") as file:
        assert {"low_similarity", "spectral_signatures", "far_from_word"} < {
            row["score"] for row in csv.DictReader(file)
        }
    with (reader.folder / "screen.csv").open(newline="") as file:
        assert {"bdetclip_score", "mirror_shift_score", "mirror_shift_p"} <= set(next(csv.reader(file)))
    with (runs / "corner-grey" / "detection.csv").open(newline="") as file:
        assert any("GreyMargin" in cell for row in csv.reader(file) for cell in row)


def test_a_study_in_one_file_goes_through_a_grid_and_the_report(reader: Typist) -> None:
    (reader.folder / "my_study.py").write_text("\n\n".join(files().values()))
    for library in ("yaml", "torch", "nltk", "sitecustomize"):  # as a folder that was downloaded may have
        (reader.folder / f"{library}.py").write_text("open('mark', 'a').write(__name__ + ' ')\n")
    grid = yaml.safe_load(blocks(PAGES / "index.md", "yaml")[0])
    grid["twins"] = False
    less = {"epochs": 1, "steps": 2}
    grid["every"]["model"] = {"encoder": "small:nano-32"}
    grid["every"]["data"] |= {"batch_size": 32, "num_workers": 0}
    grid["every"]["trainer"] |= {"precision": 32}
    grid["train"]["trainer"] = grid["defences"]["push-away"]["trainer"] = {
        "max_epochs": 1,
        "check_val_every_n_epoch": 1,
    }
    grid["defences"]["grey-evidence"]["model"] |= {
        **{"probe": {**less, "candidates": 8}, "repair": less, "rounds": 1, "sampled_pairs": 64},
    }
    (reader.folder / "grid.yaml").write_text(yaml.safe_dump(grid))
    bench, report = commands(blocks(PAGES / "index.md", "sh")[1])
    # As a shell does it, with the command that was installed.
    for command in (f"{bench} --jobs 2", report):
        said = subprocess.run(
            command.replace("untrigger", script(), 1),
            shell=True,
            cwd=reader.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-3000:]
    assert not (reader.folder / "mark").exists()
    study = reader.folder / "runs" / "bench" / "my_study"
    found = rows(study)
    assert sorted((row["attack"], row["defence"]) for row in found) == [
        *(("BadNet", "PushAway"), ("BadNet", "UBT"), ("BadNet", "none")),
        *(("Corner", "PushAway"), ("Corner", "UBT"), ("Corner", "none")),
    ]
    assert all(0 <= float(row["top_three_accuracy"]) <= 1 for row in found)
    assert "top_three_accuracy" in (study / "results.md").read_text().replace(" ", "_")
    for report_page in (study / "report.html", reader.folder / "report.html"):
        assert "Top three accuracy" in report_page.read_text()
