"""``untrigger demo``: the whole story on generated data, in minutes on a CPU."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..contracts import UserMistake
from ..datamodules.generated import write_generated_data
from .report import write_report

STAGES = ("poisoned_clip",)
"""The runs of the demo, in order; each is ``configs/demo/STAGE.yaml``."""
TRAIN_PAIRS, TEST_PAIRS = 16_000, 2_000
COLUMNS = {
    "defence": "defence",
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "attack success",
    "clean_target_rate": "without trigger",
    "seconds": "seconds",
}


def demo(out: str = "runs/demo", seed: int = 0) -> None:
    """Poison a small CLIP on generated data, measure it, and write a table and a report.

    Example:
        untrigger demo --out runs/demo

    Args:
        out: Folder for the data, the runs, ``results.csv``, ``report.html`` and its ``figures``. One that holds an
            earlier demo is replaced.
        seed: Of the data, the poison and the training.
    """
    started, console, folder = time.perf_counter(), Console(), Path(out)
    _make_room(folder)
    console.rule("Generating data")
    write_generated_data(folder / "shapes", TRAIN_PAIRS, TEST_PAIRS, seed=seed)
    console.print(
        f"{TRAIN_PAIRS:,} training pairs and {TEST_PAIRS:,} test pictures of coloured shapes in {folder}/shapes"
    )
    runs = []
    for stage in STAGES:
        console.rule(stage)
        runs.append(folder / stage)
        _run(stage, folder, runs[-1], seed)
    rows = _merge(runs, folder / "results.csv")
    console.rule("What the attack did")
    console.print(_table(rows))
    console.print(
        "Attack success: share of test pictures of other classes that the trigger sends to the target; "
        "without trigger: share of the same pictures that go there anyway."
    )
    write_report(runs, folder / "report.html")
    console.print(f"{folder}/results.csv\n{folder}/report.html   ({time.perf_counter() - started:.0f} s)")


def _make_room(folder: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise UserMistake(f"{folder} is a file; give another --out")
    ours = {"shapes", "results.csv", "report.html", "figures", *STAGES}
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found - ours:
        raise UserMistake(f"{folder} holds {sorted(found - ours)[0]!r}, which is of no demo; give another --out")
    for name in found:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _run(stage: str, folder: Path, run: Path, seed: int) -> None:
    """Run a stage as a user would: LightningCLI on a config, with overrides."""
    from ..lightning_cli import UntriggerCLI  # the command line imports the commands

    config = files("untrigger") / "configs" / "demo" / f"{stage}.yaml"
    with as_file(config) as path:
        arguments = ["fit", "--config", str(path), "--seed_everything", str(seed)]
        shapes = folder / "shapes"
        arguments += ["--data.train_shards", str(shapes / "train"), "--data.zero_shot", str(shapes)]
        arguments += ["--trainer.default_root_dir", str(run)]
        sys.argv = sys.argv[:1]
        UntriggerCLI(arguments)


def _merge(runs: list[Path], target: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for run in runs:
        with (run / "results.csv").open(newline="", encoding="utf-8") as handle:
            rows.extend(csv.DictReader(handle))
    with target.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _table(rows: list[dict[str, str]]) -> Table:
    table = Table()
    for name in COLUMNS.values():
        table.add_column(name, justify="left" if name == "defence" else "right")
    for row in rows:
        cells = []
        for column in COLUMNS:
            if column == "defence":
                cells.append("none yet" if row[column] == "none" else row[column])
            elif column == "seconds":
                cells.append(f"{float(row[column]):.0f}")
            else:
                cells.append(f"{100 * float(row[column]):.1f} %")
        table.add_row(*cells)
    return table
