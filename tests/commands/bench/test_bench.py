from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from untrigger.datamodules.generated import write_generated_data
from untrigger.run_folder.results import COLUMNS

TRIGGER = """
from untrigger.datamodules import Trigger


class Corner(Trigger):
    def __call__(self, images, keys):
        stamped = images.clone()
        stamped[:, :, :4, :4] = 255
        return stamped
"""
PLAN = {"class_path": "PoisonPlan", "init_args": {"target": "star", "rate": 0.05, "seed": "${seed}"}}
SPEC = {
    "name": "tiny",
    "data": "shapes",
    "every": {
        "model": {"encoder": "small:nano-32"},
        "data": {"zero_shot": "${data}", "train_shards": "${data}/train", "num_workers": 0, "batch_size": 64},
        "trainer": {"max_epochs": 1, "precision": 32},
    },
    "train": {"config": "demo/poisoned_clip.yaml"},
    "twins": False,
}


def plan(trigger: str) -> dict[str, object]:
    """A poison plan with a trigger."""
    return {**PLAN, "init_args": {**PLAN["init_args"], "trigger": trigger}}  # type: ignore[dict-item]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with data and a trigger of her own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_generated_data(tmp_path / "shapes", 128, 40, seed=0)
    (tmp_path / "my_own.py").write_text(TRIGGER)
    return tmp_path


def start(folder: Path, spec: dict[str, object], *options: str) -> subprocess.Popen[str]:
    """``untrigger bench`` on a file."""
    (folder / "bench.yaml").write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "untrigger.cli", "bench", "--config", "bench.yaml", *options]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed, to its end."""
    with process:
        assert process.stdout is not None
        return process.stdout.read()


def test_a_grid_runs_once_and_is_tabulated(folder: Path) -> None:
    spec = {
        **SPEC,
        "attacks": {"BadNet": {"poison": plan("BadNet")}, "mine": {"poison": plan("my_own.Corner")}},
        "defences": {
            "finetuning": {"config": "cleanclip/finetune_cifar10.yaml", "attacks": ["BadNet"]},
            "broken": {
                "config": "cleanclip/finetune_cifar10.yaml",
                "attacks": ["BadNet"],
                "model": {"multimodal_weight": -1},
            },
        },
    }
    process = start(folder, spec)
    reported = finish(process)
    assert process.returncode == 1
    assert "1 cells failed" in reported
    # The failed cell's own complaint, and the rest was run all the same.
    assert "multimodal_weight and self_supervised_weight are at least 0" in reported
    runs, records = folder / "runs/bench/tiny", folder / "benchmarks/cells/tiny"
    done = {json.loads(path.read_text())["attack"]: path for path in records.glob("*--finetuning-*.json")}
    assert len(list(records.glob("*.json"))) == 3
    record = json.loads(done["BadNet"].read_text())
    parent = runs / record["parent"]
    assert (parent / "last.ckpt").exists()
    assert str(folder) not in done["BadNet"].read_text()
    assert record["command"].startswith("untrigger fit --config configs/cleanclip/finetune_cifar10.yaml")
    assert record["peak_memory_mb"] > 100
    assert record["jobs"] == 1
    assert 0 <= record["logged"]["val/clean_accuracy"] <= 1
    # It started from the poisoned model and is measured on its attack.
    saved = yaml.safe_load((runs / record["cell"] / "config.yaml").read_text())
    assert Path(saved["model"]["init_args"]["init_from"]) == parent.relative_to(folder) / "last.ckpt"

    with (runs / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    assert [(row["attack"], row["defence"]) for row in rows] == [
        ("BadNet", "none"),
        ("BadNet", "CleanCLIP"),
        ("Corner", "none"),
    ]
    table = (runs / "results.md").read_text()
    assert "| mine | none | 0 |" in table
    assert all(f"`{path.stem}`" in table for path in records.glob("*.json"))
    assert "\\begin{tabular}" in (runs / "results.tex").read_text()
    assert (runs / "report.html").exists()

    # Again: what is finished is not run, even without its run folder, and the failed cell is tried again.
    written = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
    (runs / json.loads(next(records.glob("mine-*")).read_text())["cell"] / "last.ckpt").unlink()
    reported = finish(start(folder, spec))
    assert "4 cells, 1 to run" in reported
    assert written == {path: path.stat().st_mtime_ns for path in records.glob("*.json")}


def test_benches_may_share_their_cells_and_their_twins(folder: Path) -> None:
    spec = {**SPEC, "twins": True, "attacks": {"BadNet": {"poison": plan("BadNet")}}}
    reported = finish(start(folder, spec))
    assert "3 cells, 3 to run" in reported
    records = {path.name[:-14]: json.loads(path.read_text()) for path in folder.glob("benchmarks/cells/tiny/*.json")}
    assert sorted(records) == ["BadNet-seed0", "BadNet-seed0--twin", "twin-seed0"]
    poisoned, measured = records["BadNet-seed0"], records["BadNet-seed0--twin"]
    assert measured["command"].startswith("untrigger validate --config configs/demo/poisoned_clip.yaml")
    (clean,) = measured["results"]
    assert (clean["attack"], clean["defence"]) == ("BadNet", "none")
    # Without the poison, the same model; under the trigger, the same pictures.
    assert clean["clean_accuracy"] == records["twin-seed0"]["results"][0]["clean_accuracy"]
    assert records["twin-seed0"]["results"][0]["attack"] == "none"

    later = {**spec, "name": "later", "cells_of": "tiny"}
    assert "3 cells, 0 to run" in finish(start(folder, later))
    runs = folder / "runs/bench"
    for table in (runs / "later/results.csv", runs / "tiny" / poisoned["cell"] / "results.csv"):
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
        assert [(row["attack"], row["attack_success_floor"]) for row in rows] == [
            ("BadNet", clean["attack_success_rate"])
        ]
        assert rows[0]["triggered_accuracy_ceiling"] == clean["non_target_triggered_accuracy"]
        assert float(rows[0]["recovered"]) == pytest.approx(
            float(rows[0]["non_target_triggered_accuracy"]) / float(rows[0]["triggered_accuracy_ceiling"]), rel=1e-4
        )
    assert f"`{poisoned['cell']}`" in (runs / "later/results.md").read_text()
    assert "| ASR floor (%) | recovered (%) | ceiling (%) |" in (runs / "later/results.md").read_text()
    assert (runs / "later/report.html").exists()
    assert not (folder / "benchmarks/cells/later").exists()


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGTERM])
def test_a_cell_that_was_stopped_resumes_where_it_was(ended: signal.Signals, folder: Path) -> None:
    every = {**SPEC["every"], "trainer": {"max_epochs": 60, "check_val_every_n_epoch": 60}}  # type: ignore[dict-item]
    spec = {**SPEC, "every": every, "attacks": {"BadNet": {"poison": plan("BadNet")}}}
    process = start(folder, spec)
    runs = folder / "runs/bench/tiny"
    until = time.monotonic() + 600
    while not list(runs.glob("BadNet-*/last.ckpt")):
        assert time.monotonic() < until
        assert process.poll() is None, finish(process)
        time.sleep(0.05)
    if ended == signal.SIGKILL:
        os.killpg(process.pid, ended)
    else:
        process.send_signal(ended)  # the bench's alone: it passes it on
    reported = finish(process)
    assert process.returncode == (-ended if ended == signal.SIGKILL else 128 + ended), reported
    if ended == signal.SIGTERM:
        with pytest.raises(ProcessLookupError):  # nothing is left behind
            os.killpg(process.pid, 0)
    (stopped,) = runs.glob("BadNet-*/last.ckpt")
    assert torch.load(stopped, weights_only=True)["epoch"] < 59
    assert not list((folder / "benchmarks").glob("**/*.json"))
    took = [json.loads(path.read_text())["seconds"] for path in (runs / "logs").glob("*.took.json")]
    assert len(took) == (ended == signal.SIGTERM)

    process = start(folder, spec)
    reported = finish(process)
    assert process.returncode == 0, reported
    (record,) = (json.loads(path.read_text()) for path in (folder / "benchmarks/cells/tiny").glob("*.json"))
    assert record["results"][0]["samples_seen"] == str(60 * 128)
    (log,) = (runs / "logs").glob("BadNet-*.log")
    assert f"Restored all states from the checkpoint at {stopped.relative_to(folder)}" in log.read_text()
    (whole,) = (json.loads(path.read_text())["seconds"] for path in (runs / "logs").glob("*.took.json"))
    assert record["wall_seconds"] >= float(record["results"][0]["seconds"])
    assert whole > sum(took)
    assert record["wall_seconds"] == pytest.approx(max(whole, float(record["results"][0]["seconds"])), abs=0.1)


def test_cells_are_listed_and_chosen_by_name(folder: Path) -> None:
    spec = {**SPEC, "seeds": [0, 1], "attacks": {"BadNet": {"poison": plan("BadNet")}}}
    listed = finish(start(folder, spec, "--run", "false"))
    assert "to run  BadNet-seed0" in listed
    assert "to run  BadNet-seed1" in listed
    chosen = finish(start(folder, spec, "--run", "false", "--only", "BadNet-seed0"))
    assert "to run  BadNet-seed0" in chosen
    assert "BadNet-seed1" not in chosen  # it would pass for one that is done
    assert not (folder / "runs").exists()
    process = start(folder, spec, "--only", "BadNet-seed9")
    assert "there is no cell BadNet-seed9" in finish(process)
    assert process.returncode == 2
