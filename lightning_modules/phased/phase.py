"""The base class of a phase."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from torch import Tensor

from ...contracts import ImageTextBatch
from .towers import TOWERS

Module = TypeVar("Module")


class Phase(ABC, Generic[Module]):
    """A part of a run: which pairs it streams, what it learns from a batch, when it is over, and what comes next.

    A phase takes one epoch of Lightning's or several. It may be entered several times in a run; the module counts
    (``PhasedCLIPModule.visit``). ``Module`` is the module whose phase it is.

    The calls, in their order: ``begin`` once when it is entered; ``select`` before each epoch; ``prepare`` when it is
    entered and when a run resumes in it, after ``select``; ``step`` for each batch; ``over`` after the last batch of
    each epoch; ``end`` once. In ``begin``, ``select`` and ``prepare`` there is no batch yet, and none of them may rely
    on the trainer's epoch: on a restart it is not known yet.

    All but ``prepare`` and ``step`` have to come to the same on all ranks. What must survive a restart stands in the
    module's own state or in ``state_dict``; what ``prepare`` makes is made again.

    Args:
        name: For the progress bar and the logs, and by which other phases name it as their successor.
        epochs: How many it takes at most, in one visit.
        lr: Learning rate of what learns.
    """

    learning: tuple[str, ...] = ()
    """The towers that learn, of ``image`` and ``rest`` (the text tower and the temperature)."""
    train_mode: bool = False
    """Whether the encoder is in training mode in a step. Where it is not, there is no dropout, and batch norm keeps
    its running statistics and uses them, whatever learns."""
    measured: str = ""
    """What an evaluation meanwhile is of, as ``PhasedModule.measured``: empty for the model that the run is about, a
    word such as ``overfitted`` while the weights are a copy's."""
    evaluated: bool = False
    """Whether an evaluation comes at its end."""

    keeps_optimiser: bool = False
    """Whether the optimiser continues with the moments that earlier phases have left; otherwise it starts afresh."""

    def __init__(self, name: str, epochs: int = 1, lr: float = 0.0) -> None:
        self.name, self.epochs, self.lr = name, epochs, lr

    def begin(self, module: Module) -> None:
        """Do what is done once, each time that the phase is entered."""

    @abstractmethod
    def select(self, module: Module, epoch: int) -> None:
        """Select the pairs that are streamed in an epoch of this visit, counted from 0: at least one batch."""

    def prepare(self, module: Module) -> None:
        """Make what it needs and no checkpoint keeps: when the phase is entered, and when a run resumes in it."""

    @abstractmethod
    def step(self, module: Module, batch: ImageTextBatch, batch_idx: int) -> Tensor | None:
        """The loss of a batch; None where nothing is learnt."""

    def learning_rate(self, module: Module, step: int) -> float:
        """The learning rate of a step of the optimiser.

        Args:
            module: The run.
            step: Steps that the optimiser has taken in this visit, over all of its epochs.

        Returns:
            ``lr``, unless a phase has a schedule of its own.
        """
        return self.lr

    def over(self, module: Module, epoch: int) -> bool:
        """Whether the phase ends with this epoch, which has just had its last batch; it does anyway at ``epochs``."""
        return False

    @abstractmethod
    def end(self, module: Module) -> str | None:
        """Draw the conclusions.

        Returns:
            The name of the phase that comes next, this one and earlier ones included; None where the run is over.
        """

    def repeat(self, module: Module) -> None:
        """Forget the epoch so far: a restarted run streams it from its first batch again."""

    def state_dict(self) -> dict[str, Any]:
        """What a restart needs, as tensors and plain data: of a phase that runs, and of one that is entered again.

        It is asked for on all ranks, and that of the first is kept.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume there.

        Args:
            state_dict: What ``state_dict`` gave.
            rank: This process's; there may be more of them than there were.
        """


def phase_table(*phases: Phase[Any]) -> dict[str, Phase[Any]]:
    """Phases by name, in the given order; a run starts with the first.

    Raises:
        ValueError: If there is none, two have the same name, or one has no epoch, learns at a rate of 0, or lets
            something learn that there is not.
    """
    if not phases:
        raise ValueError("a run needs a phase")
    table = {phase.name: phase for phase in phases}
    if len(table) < len(phases):
        raise ValueError(f"two phases have the same name: {', '.join(phase.name for phase in phases)}")
    for phase in phases:
        if phase.epochs < 1:
            raise ValueError(f"phase {phase.name} has {phase.epochs} epochs: leave it out")
        if phase.learning and not phase.lr and type(phase).learning_rate is Phase.learning_rate:
            raise ValueError(f"phase {phase.name} lets {', '.join(phase.learning)} learn at a rate of 0: give it lr")
        if unknown := set(phase.learning) - set(TOWERS):
            raise ValueError(f"phase {phase.name} lets {', '.join(sorted(unknown))} learn: there are {TOWERS}")
    return table
