"""How often a check is wrong: what it was tried on, and what that says of the next model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files

_Z = 1.96
"""Standard deviations of a 95 % interval."""


@dataclass(frozen=True)
class Share:
    """How many of some models."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate that they were drawn from (Wilson 1927), in [0, 1]."""
        if not self.of:
            return 0.0, 1.0
        share, weight = self.count / self.of, _Z**2 / self.of
        centre = (share + weight / 2) / (1 + weight)
        width = _Z * math.sqrt(share * (1 - share) / self.of + weight / (4 * self.of)) / (1 + weight)
        return max(0.0, centre - width), min(1.0, centre + width)


@dataclass(frozen=True)
class Calibration:
    """What one kind of check was tried on."""

    models: str
    """Which models."""
    encoder: str
    """Their encoder: of others nothing is known."""
    false_alarms: Share
    """Clean models that raised an alarm."""
    detections: Share
    """Poisoned models that did."""
    threshold: float | None = None
    """Without data: the P-L1 norm below which there is an alarm."""


def read_calibration(with_data: bool) -> Calibration:
    """What the package's own check was tried on, as ``benchmarks/RESULTS.md`` reports it.

    Args:
        with_data: Of the check with training pairs, or of the one of a model alone.
    """
    text = (files(__package__) / "calibration.json").read_text(encoding="utf-8")
    found = json.loads(text)["with_data" if with_data else "without_data"]
    alarms, detections = (Share(**found.pop(name)) for name in ("false_alarms", "detections"))
    return Calibration(false_alarms=alarms, detections=detections, **found)
