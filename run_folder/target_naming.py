"""``target_naming.json``: the class that a universal patch names, in figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files.writing import write_text

TARGET_NAMING_RECORD = "target_naming.json"
"""The name of the file."""


@dataclass(frozen=True)
class TargetNamingRecord:
    """What a naming of the target has found. There is always a class that gains most: it is no verdict.

    Attributes:
        target: The class that gains most pictures by the patch.
        shift: The share of pictures that it gains, in [-1, 1].
        runner_up: The class that gains most of the others.
        runner_up_shift: The share that this one gains.
        margin: The difference of the two.
        fooled: Share of the pictures that the patch moves to another class, in [0, 1].
        pictures: How many there were.
        shifts: The share that each class gains.
    """

    target: str
    shift: float
    runner_up: str
    runner_up_shift: float
    margin: float
    fooled: float
    pictures: int
    shifts: dict[str, float]

    def write(self, folder: Path) -> None:
        """Write ``target_naming.json``.

        Args:
            folder: The run folder.
        """
        write_text(folder / TARGET_NAMING_RECORD, json.dumps(asdict(self), indent=2) + "\n")
