"""Make the record of a finished cell: a small JSON file that is kept when the run folder is not."""

from __future__ import annotations

import os
import platform
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ...run_folder.curves import read_curves
from ...run_folder.ubt import UBT_RECORD, UBTRecord
from .grid import Cell

ATTACK_SUCCESS = "val/attack_success_rate"
"""What attack success is logged as; where a run measures several attacks, with ``/NAME`` for each."""
_PACKAGES = ("untrigger", "torch", "torchvision", "lightning", "transformers", "open_clip_torch", "webdataset")


def make_record(
    cell: Cell,
    rows: list[dict[str, str]],
    folder: Path,
    wall_seconds: float,
    peak_memory_mb: float,
    jobs: int,
    code: str,
) -> dict[str, Any]:
    """Make the record of a finished cell.

    Args:
        cell: The cell.
        rows: The rows of its ``results.csv``.
        folder: Its run folder.
        wall_seconds: From the start of its process to the end, over all sessions where it was stopped in between.
        peak_memory_mb: Peak memory of the largest of its processes, in MB.
        jobs: How many cells ran at a time.
        code: Digest of the source that it ran, as `code_of`.

    Returns:
        Plain data, with the words that UBT has ``named``. It names no folder of the machine: data and other runs stand
        as variables.
    """
    curves = read_curves(folder)
    looked_for = UBTRecord.read(folder) if (folder / UBT_RECORD).exists() else None
    return {
        "cell": cell.id,
        "attack": cell.attack,
        "defence": cell.defence,
        "seed": cell.seed,
        "parent": cell.parent.id if cell.parent is not None else None,
        "hash": cell.hash,
        "code": code,
        "command": command(cell),
        "config": cell.config,
        "arguments": list(cell.arguments),
        "needs": {variable: before.id for variable, before in cell.needs.items()},
        "results": rows,
        "logged": {key: curve[-1][1] for key, curve in curves.items() if not key.startswith("train/")},
        "highest": {
            key: max(value for _, value in curve) for key, curve in curves.items() if key.startswith(ATTACK_SUCCESS)
        },
        **({} if looked_for is None or looked_for.given else {"named": looked_for.compromised}),
        "wall_seconds": round(wall_seconds, 1),
        "peak_memory_mb": round(peak_memory_mb),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "machine": _machine(),
        "jobs": jobs,
        "date": datetime.now(UTC).date().isoformat(),
    }


def command(cell: Cell) -> str:
    """The command that repeats a cell, for a shell in which the variables in it are set."""
    # The package's own are found by the names that they have in a checkout.
    config = cell.config if Path(cell.config).is_file() else f"configs/{cell.config.removeprefix('configs/')}"
    words = ["untrigger", cell.subcommand, "--config", config, *cell.arguments]
    # Double quotes let the shell put the variables in, single quotes would not.
    quoted = [f'"{word}"' if "$" in word and '"' not in word else shlex.quote(word) for word in words]
    return " ".join([*quoted, "--trainer.default_root_dir", '"${run}"'])


def _machine() -> str:
    devices = torch.cuda.device_count()
    if devices:
        return f"{devices} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} cores ({platform.machine()}), no GPU"
