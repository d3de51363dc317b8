"""The phase that unlearns what was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .findings import BENIGN, POISONED, Indices, sample
from .state import UBTState
from .transplants import EVERY, Carrier
from .unlearn import Pushed, Unlearn, UnlearnWeights

_HELD = 1024
"""Poisoned pairs that are pushed at most; their pictures stay in memory."""


class Repair(Unlearn):
    """Unlearns all that was found so far, from the poisoned model on.

    Args:
        epochs: See ``Unlearn``.
        steps: See ``Unlearn``.
        lr: See ``Unlearn``.
        batch_size: See ``Unlearn``.
        weights: See ``Unlearn``.
        verified: Whether it is scored and probed again afterwards.
        carriers: See ``Unlearn``.
    """

    evaluated = True

    def __init__(
        self,
        epochs: int,
        steps: int,
        lr: float,
        batch_size: int,
        weights: UnlearnWeights,
        verified: bool,
        carriers: Sequence[Carrier] = EVERY,
    ) -> None:
        super().__init__("repair", epochs, steps, lr, batch_size, weights, carriers)
        self.verified = verified

    def begin(self, ubt: UBTState) -> None:
        """Start from the poisoned model."""
        ubt.set_answer(None)
        ubt.return_to_answer()

    def pushed(self, ubt: UBTState) -> Pushed:
        """The pairs that are to be unlearnt."""
        pairs = sample(ubt.findings.having(POISONED), _HELD, 0)
        return Pushed(pairs, ubt.findings.poisoned_with[pairs].astype(np.int64))

    def held(self, ubt: UBTState) -> Indices:
        """Benign pairs."""
        return ubt.findings.having(BENIGN)

    def end(self, ubt: UBTState) -> str | None:
        """What was learnt is the model in question from now on."""
        ubt.set_answer(ubt.encoder.state_dict())
        return "score" if self.verified and ubt.rounds_done < ubt.rounds else None
