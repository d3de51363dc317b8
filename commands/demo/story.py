"""Run the demo: generate data, poison, clean and unlearn a model, and write a table and a report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...contracts import UserMistake
from ...datamodules.generated import write_generated_data
from ...files.tables import number
from ...run_folder.manifest import MANIFEST
from ...run_folder.results import RESULTS, read_results, write_results
from ..report.document import write_report
from ..trainer_runs import run_trainer
from .time_left import minutes_left

STAGES = {
    "poisoned_clip": "Poisoning: 1 % of the pairs get a trigger and a caption of the target class",
    "cleanclip": "CleanCLIP: finetuning the poisoned model on other pairs, all of them clean",
    "ubt": "UBT: unlearning on the pairs that it was trained on, poison included",
}
"""The runs of the demo, in order, each with its description; the config of a run is ``configs/demo/STAGE.yaml``."""
TRAIN_PAIRS, CLEAN_PAIRS, TEST_PAIRS = 16_000, 4_000, 2_000
SHARD_SIZE = 1_000
RECOVERED = "recovered"
COLUMNS = {
    "defence": "model",
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "attack success",
    "clean_target_rate": "without trigger",
    RECOVERED: "recovered",
    "seconds": "seconds",
}


def run_story(folder: Path, seed: int) -> None:
    """Generate the data, run the stages, and write a table and a report.

    Args:
        folder: Output folder; an earlier demo in it is replaced.
        seed: Seed of the data, the poison and the training.

    Raises:
        UserMistake: If the folder holds anything else.
    """
    started, console = time.perf_counter(), Console()
    _remove_earlier_demo(folder)
    console.rule("Generating data")
    pairs = TRAIN_PAIRS + CLEAN_PAIRS
    write_generated_data(folder / "shapes", pairs, TEST_PAIRS, seed=seed, shard_size=SHARD_SIZE)
    console.print(f"{pairs:,} pairs and {TEST_PAIRS:,} test pictures of coloured shapes in {folder}/shapes")
    done = ["data"]
    for stage_number, (stage, description) in enumerate(STAGES.items(), 1):
        left = minutes_left(time.perf_counter() - started, done)
        console.rule(f"Stage {stage_number} of {len(STAGES)}, about {left} min left")
        console.print(description)
        _run(stage, folder, seed, f"{stage_number}/{len(STAGES)}")
        done.append(stage)
    runs = [folder / stage for stage in STAGES]
    rows = _merge_results(runs, folder)
    console.rule("Before and after")
    console.print(_table(rows))
    console.print(
        "Clean accuracy: share of test pictures that are classified right. Attack success: share of test pictures of "
        "other classes that the trigger sends to the target class; without trigger: share of the same pictures that "
        "go there anyway. Recovered: accuracy on them with the trigger, as a share of the poisoned model's accuracy "
        "without; attack success alone may fall while the trigger still blinds the model."
    )
    write_report(runs, folder / "report.html")
    console.print(f"{folder}/{RESULTS}\n{folder}/report.html   ({time.perf_counter() - started:.0f} s)")


def _remove_earlier_demo(folder: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise UserMistake(f"{folder} is a file; give another --out")
    ours = {"shapes", RESULTS, "report.html", "figures", *STAGES}
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found - ours:
        raise UserMistake(f"{folder} holds {sorted(found - ours)[0]!r}, which is of no demo; give another --out")
    for name in found:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _run(stage: str, folder: Path, seed: int, label: str) -> None:
    """Run a stage as a user would: LightningCLI on a config, with overrides."""
    arguments = ["--seed_everything", str(seed), "--data.zero_shot", str(folder / "shapes")]
    arguments += [*_overrides(stage, folder), "--trainer.default_root_dir", str(folder / stage)]
    arguments += ["--progress_bar.label", label]
    run_trainer("fit", f"demo/{stage}.yaml", arguments)


def _overrides(stage: str, folder: Path) -> list[str]:
    """Options for the pairs of a stage and, for a defence, for the poisoned run that it starts from."""
    poisoned, shards = folder / "poisoned_clip", TRAIN_PAIRS // SHARD_SIZE
    first, last = (shards, shards + CLEAN_PAIRS // SHARD_SIZE - 1) if stage == "cleanclip" else (0, shards - 1)
    pairs = ["--data.train_shards", f"{folder}/shapes/train/{{{first:05d}..{last:05d}}}.tar"]
    if stage == "poisoned_clip":
        return pairs
    manifest = "--data.attack" if stage == "cleanclip" else "--data.poison"  # CleanCLIP trains on clean pairs
    return [*pairs, "--model.init_from", str(poisoned / "last.ckpt"), manifest, str(poisoned / MANIFEST)]


def _merge_results(runs: list[Path], target: Path) -> list[dict[str, str]]:
    """Write the results of all runs to one file."""
    rows: list[dict[str, str]] = []
    for run in runs:
        rows.extend(read_results(run))
    write_results(target, rows)
    return rows


def _table(rows: list[dict[str, str]]) -> Table:
    """The results as a table for the console."""
    table = Table()
    for name in COLUMNS.values():
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=name == "model")
    poisoned = number(rows[0]["clean_accuracy"]) if rows else None
    for row in rows:
        cells = []
        for column in COLUMNS:
            if column == "defence":
                cells.append("before: poisoned" if row[column] == "none" else f"after {row[column]}")
            elif column == RECOVERED:
                cells.append(_recovered(row, poisoned))
            elif column == "seconds":
                cells.append(f"{float(row[column]):.0f}")
            else:
                cells.append(f"{100 * float(row[column]):.1f} %")
        table.add_row(*cells)
    return table


def _recovered(row: Mapping[str, str], clean_accuracy: float | None) -> str:
    """Accuracy under the trigger on pictures of other classes than the target, as a share of a clean accuracy."""
    accuracy = number(row.get("non_target_triggered_accuracy"))
    return f"{100 * accuracy / clean_accuracy:.1f} %" if accuracy is not None and clean_accuracy else ""
