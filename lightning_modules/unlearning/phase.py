"""What a phase of a run says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ...contracts import ImageTextBatch

if TYPE_CHECKING:
    from ..ubt import UBT


class Phase(ABC):
    """A part of a run: whom it streams, what it learns from a batch, and when it is over.

    A phase takes one epoch of Lightning's or several, its laps. What must survive a restart stands in the module's
    findings or in ``state_dict``; what ``prepare`` makes is made again.

    Args:
        name: For the progress bar and the logs.
        laps: How many it takes at most.
        lr: Of what learns.
    """

    learning: ClassVar[tuple[str, ...]] = ()
    """The towers that learn: ``image`` and ``rest``."""
    measured: ClassVar[str | None] = None
    """What an evaluation at its end is of, as ``PhasedModule.measured``; None where there is none."""
    copy: ClassVar[bool] = False
    """Whether the weights in the encoder are the overfitted copy's meanwhile."""

    def __init__(self, name: str, laps: int = 1, lr: float = 0.0) -> None:
        self.name, self.laps, self.lr = name, laps, lr

    @abstractmethod
    def select(self, ubt: UBT, lap: int) -> None:
        """Tell the data module whom to stream in a lap."""

    def begin(self, ubt: UBT) -> None:  # noqa: B027  # most phases have nothing to do here
        """Do what is done once, when the phase is entered."""

    def prepare(self, ubt: UBT) -> None:  # noqa: B027  # most phases have nothing to do here
        """Make what it needs and no checkpoint keeps: when the phase is entered, and when a run goes on in it."""

    @abstractmethod
    def step(self, ubt: UBT, batch: ImageTextBatch, batch_idx: int) -> Tensor | None:
        """The loss of a batch; None where nothing is learnt."""

    def over(self, ubt: UBT, lap: int) -> bool:
        """Whether the phase ends with this lap, which has just had its last batch."""
        return lap + 1 >= self.laps

    def end(self, ubt: UBT) -> bool:
        """Draw the conclusions. Returns whether there is still something to suspect."""
        return True

    def repeat(self, ubt: UBT) -> None:  # noqa: B027  # most phases have nothing to do here
        """Forget the lap so far: a restarted run streams it from its first batch again."""

    def state_dict(self) -> dict[str, Any]:
        """What it is in the middle of, as plain data."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:  # noqa: B027  # most phases have nothing to do here
        """Go on there."""
