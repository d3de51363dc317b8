"""Error rates of a check: the models that it was tried on, and what they say of the next one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from ..proportion import Proportion

NOT_MEASURED = "not measured yet for this release"


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
        with_data: Whether to read the calibration of checks with training pairs, or that of checks of a model alone.
    """
    text = (files(__package__) / "calibration.json").read_text(encoding="utf-8")
    found = json.loads(text)["with_data" if with_data else "without_data"]
    situations = tuple(Situation(**each) for each in found["situations"])
    return Calibration(found["encoder"], found["threshold"], situations)


def _share(situations: Iterable[Situation]) -> Proportion:
    listed = list(situations)
    return Proportion(sum(each.alarms for each in listed), sum(each.models for each in listed))
