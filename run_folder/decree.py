"""``decree.json``: the trigger that DECREE has inverted, in figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files.writing import write_text

DECREE_RECORD = "decree.json"
"""The name of the file."""


@dataclass(frozen=True)
class DECREERecord:
    """What a run of DECREE has found.

    Attributes:
        found: Whether any trigger makes all pictures embed alike.
        l1_norm: Size of the smallest one: its mask summed over pixels and three channels.
        p_l1_norm: The same as a share of the whole picture, in [0, 1].
        cosine: Mean cosine of two pictures with it; None where none was found.
        threshold: The mean cosine from which on pictures count as alike.
        steps: How many steps the run took.
    """

    found: bool
    l1_norm: float
    p_l1_norm: float
    cosine: float | None
    threshold: float
    steps: int

    def write(self, folder: Path) -> None:
        """Write ``decree.json``.

        Args:
            folder: The run folder.
        """
        write_text(folder / DECREE_RECORD, json.dumps(asdict(self), indent=2) + "\n")
