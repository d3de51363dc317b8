"""The progress of a run in phases, and the time that its phase has taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any


@dataclass
class Progress:
    """Where a run stands. Plain data, which a checkpoint keeps.

    Attributes:
        phase: The name of the phase that runs; empty before the run starts and when it is over.
        done: Whether the run is over.
        epoch: Epoch of this visit of the phase, from 0.
        step: Steps of the optimiser in this visit.
        visits: By name, how often a phase was entered.
        epoch_is_over: Whether the epoch has had its last batch.
        phase_is_over: Whether the phase ends with it.
        entered_now: Whether the phase has been entered and has had no batch yet.
    """

    phase: str = ""
    done: bool = False
    epoch: int = 0
    step: int = 0
    visits: dict[str, int] = field(default_factory=dict)
    epoch_is_over: bool = False
    phase_is_over: bool = False
    entered_now: bool = False

    def enter(self, name: str) -> None:
        """Start a visit of a phase."""
        self.phase, self.epoch, self.step, self.entered_now = name, 0, 0, True
        self.visits[name] = self.visits.get(name, 0) + 1

    def leave(self) -> None:
        """The run is over."""
        self.phase, self.epoch, self.step, self.done, self.entered_now = "", 0, 0, True, False

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs."""
        return asdict(self)

    @classmethod
    def of_state(cls, state_dict: Mapping[str, Any]) -> Progress:
        """What gave this state."""
        return cls(**{**state_dict, "visits": dict(state_dict["visits"])})


class Clock:
    """Seconds of a phase, without the time for which it is stopped. It stands until it is started.

    Args:
        seconds: What it shows at first.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What it shows."""
        return self._before + (0.0 if self._since is None else perf_counter() - self._since)

    def start(self) -> None:
        """Start, or resume."""
        self._before, self._since = self.seconds, perf_counter()

    def stop(self) -> None:
        """Stop."""
        self._before, self._since = self.seconds, None
