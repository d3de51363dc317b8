"""How often a check is wrong: what it was tried on, and what that says of the next model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

_Z = 1.96
"""Standard deviations of a 95 % interval."""
NOT_MEASURED = "not measured yet for this release"


@dataclass(frozen=True)
class Proportion:
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
class Situation:
    """Models of one kind on which a check was tried."""

    name: str
    """Which: the attack and its rate, or what clean data looks like."""
    poisoned: bool
    models: int
    alarms: int
    """Models that raised an alarm: found ones, where they are poisoned, and else false alarms."""


@dataclass(frozen=True)
class Calibration:
    """What one kind of check was tried on.

    Attributes:
        encoder: The models' encoder: of others nothing is known.
        threshold: Without data, the P-L1 norm below which there is an alarm; None with data.
        situations: The models, kind by kind; none where nothing was measured yet for this release.
    """

    encoder: str
    threshold: float | None
    situations: tuple[Situation, ...]

    @property
    def measured(self) -> bool:
        """Whether there are any rates."""
        return bool(self.situations)

    @property
    def false_alarms(self) -> Proportion:
        """Clean models that raised an alarm."""
        return _share(each for each in self.situations if not each.poisoned)

    @property
    def detections(self) -> Proportion:
        """Poisoned models that did."""
        return _share(each for each in self.situations if each.poisoned)


def read_calibration(with_data: bool) -> Calibration:
    """What the package's own check was tried on, as ``benchmarks/RESULTS.md`` reports it.

    Args:
        with_data: Of the check with training pairs, or of the one of a model alone.
    """
    text = (files(__package__) / "calibration.json").read_text(encoding="utf-8")
    found = json.loads(text)["with_data" if with_data else "without_data"]
    situations = tuple(Situation(**each) for each in found["situations"])
    return Calibration(found["encoder"], found["threshold"], situations)


def _share(situations: Iterable[Situation]) -> Proportion:
    listed = list(situations)
    return Proportion(sum(each.alarms for each in listed), sum(each.models for each in listed))
