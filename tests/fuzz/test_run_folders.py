"""Run folders of any origin, as the report, the bench, the check and the export read them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fuzz.mutations import JSON, TEXT, ZIP, Mutation
from fuzz.trial import Door, runs, try_door

from untrigger.commands.asked import take_folder
from untrigger.commands.bench.console import _figures
from untrigger.commands.bench.tables import labelled_rows, latex_table, markdown_table
from untrigger.commands.check.command import _answer
from untrigger.commands.export.card import _eval_results, _found, _measured
from untrigger.commands.export.history import read_history
from untrigger.commands.report.document import write_report
from untrigger.commands.report.feature_space import read_space
from untrigger.commands.report.records import records_of
from untrigger.commands.report.runs import read_runs
from untrigger.commands.summary import best_defences, summarise
from untrigger.contracts import Attack
from untrigger.run_folder.cell import read_record
from untrigger.run_folder.evaluation import Evaluation, write_evaluation
from untrigger.run_folder.results import COLUMNS, add_results

ROW = dict(zip(COLUMNS, ("cifar10", "BadNet", "none", "0"), strict=False)) | dict.fromkeys(COLUMNS[4:], "0.5")
CELL = {
    **{"cell": "BadNet-seed0-1", "attack": "BadNet", "defence": "none", "seed": 0, "parent": None, "config": "c.yaml"},
    **{"results": [ROW], "logged": {"ubt/alarm": 1.0}, "wall_seconds": 3.5, "peak_memory_mb": 100, "command": "x"},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a file of each kind."""
    folder = tmp_path / "run"
    add_results(folder, [ROW, {**ROW, "attack": "Blended"}])
    config = {"model": {"class_path": "untrigger.lightning_modules.UBT", "init_args": {"init_from": "a/last.ckpt"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "cell.json").write_text(json.dumps(CELL))
    (folder / "metrics.csv").write_text("step,train/loss,val/clean_accuracy\n1,0.5,\n2,0.4,0.7\n")
    (folder / "suspects.csv").write_text("key,decision,score,compromised_tokens\na,poisoned,0.5,cat dog\nb,kept,0.1,\n")
    half = np.linspace(-1, 1, 24, dtype=np.float16)
    write_evaluation(
        Evaluation(
            *("cifar10", ["cat", "dog"], [Attack("BadNet", 1)], np.arange(6, dtype=np.uint64), np.arange(6) % 2),
            *(half[:6], half.reshape(6, 4), {"BadNet": half[6:12]}, {"BadNet": half.reshape(6, 4)[::-1].copy()}),
        ),
        folder,
    )
    return folder


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that overflow half precision
        yield


def _reported(run: Path) -> None:
    records = records_of(read_runs([run]))
    for record in records:
        read_space(record)
    best_defences(summarise(record.figures() for record in records))


def _carded(run: Path) -> None:
    torch.save({"callbacks": {}}, run / "last.ckpt")
    history = read_history(run / "last.ckpt")
    for part in (_found, _measured, _eval_results):
        part(history)


DOORS: dict[str, tuple[str, Callable[[Path], object], tuple[object, ...]]] = {
    "report results": ("results.csv", _reported, TEXT),
    "report config": ("config.yaml", _reported, TEXT),
    "report cell": ("cell.json", _reported, JSON),
    "report log": ("metrics.csv", _reported, TEXT),
    "report suspects": ("suspects.csv", _reported, TEXT),
    "report evaluation": ("evaluation.npz", _reported, ZIP),
    "card results": ("results.csv", _carded, TEXT),
    "card config": ("config.yaml", _carded, TEXT),
    "card suspects": ("suspects.csv", _carded, TEXT),
}


@pytest.mark.parametrize("name", DOORS)
def test_a_file_of_a_run(name: str, run: Path) -> None:
    file, read, mutations = DOORS[name]
    assert sum(try_door(Door(run / file, lambda: read(run), mutations), runs(60), name))  # type: ignore[arg-type]


def test_the_record_of_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(CELL))

    def tabulate() -> None:
        record = read_record(path)
        assert record is not None
        rows = summarise(labelled_rows([record]))
        markdown_table(rows), latex_table(rows)
        for row in record["results"]:
            _figures(row)

    assert try_door(Door(path, tabulate, JSON), runs(100), "record")[1]


def test_the_answer_of_a_check(tmp_path: Path) -> None:
    asked = {"model": "m"}

    def take() -> None:
        take_folder(tmp_path, asked, "check")

    take()
    path = tmp_path / "check.json"
    path.write_text(json.dumps({"verdict": "clean", "exit_code": 0, "pairs": None}))
    assert try_door(Door(path, lambda: _answer(tmp_path), JSON), runs(60), "answer")[1]
    question = tmp_path / "asked.json"
    assert try_door(Door(question, take, JSON), runs(60), "question")[1]


@pytest.mark.parametrize(("file", "mutations"), [("metrics.csv", TEXT), ("evaluation.npz", ZIP)])
def test_a_report_of_a_broken_run(file: str, mutations: tuple[Mutation, ...], run: Path, tmp_path: Path) -> None:
    tries = min(runs(1), 20)  # each draws all figures
    assert sum(
        try_door(Door(run / file, lambda: write_report([run], tmp_path / "report.html"), mutations), tries, file)
    )
