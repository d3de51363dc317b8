"""``metrics.csv``: what a run has logged over its steps, by Lightning's CSVLogger."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from ..files.reading import reading
from ..files.tables import number
from .results import RESULTS

METRICS = "metrics.csv"
"""The name of the file, in the run folder or below it."""
_MAX_STEPS = 2**53
"""More are no steps, and no figure's axis is as long."""


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read what a run has logged.

    Args:
        folder: A run folder.

    Returns:
        By key, (step, value) in the order of steps; nothing where no CSV logger wrote.
    """
    by_step: dict[str, dict[int, float]] = {}
    # A later session of a resumed run logs the steps since its checkpoint again: its values are the ones that count.
    for path in sorted(_logs(folder), key=_session):
        with reading("log of a run", path), path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):
                step = number(row.pop("step", None))
                for key, text in row.items():
                    value = number(text)
                    if step is not None and value is not None and abs(step) < _MAX_STEPS:
                        by_step.setdefault(key, {})[int(step)] = value
    return {key: sorted(values.items()) for key, values in by_step.items()}


def _logs(folder: Path) -> Iterator[Path]:
    """The files of Lightning's CSVLogger, whatever its name and version; not those of runs inside this run."""
    for pattern in (METRICS, f"*/{METRICS}", f"*/*/{METRICS}"):
        for path in folder.glob(pattern):
            inner = path.relative_to(folder).parents
            if not any((folder / parent / RESULTS).exists() for parent in inner if parent != Path()):
                yield path


def _session(path: Path) -> tuple[int, str]:
    version = re.fullmatch(r"(?:version_|resumed-)(\d+)", path.parent.name)
    return int(version[1]) if version else -1, str(path)
