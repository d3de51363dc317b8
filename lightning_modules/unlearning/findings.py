"""What the phases hand on to each other: scores and sets, no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .captions import CaptionTokens
from .localisation import CompromisedTokens
from .scores import Scores

BENIGN, SUSPICIOUS, POISONED = range(3)


@dataclass
class Suspects:
    """Who may be poisoned, by one try.

    Attributes:
        suspicion: As ``Findings.suspicion``.
        decision: As ``Findings.decision``.
        compromised: As ``Findings.compromised``.
    """

    suspicion: dict[str, Scores]
    decision: npt.NDArray[np.int8]
    compromised: CompromisedTokens

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data and tensors."""
        return {
            "suspicion": _tensors(self.suspicion),
            "decision": torch.from_numpy(self.decision),
            "compromised": [list(part) for part in self.compromised],
        }

    @classmethod
    def of_state(cls, state_dict: Mapping[str, Any]) -> Suspects:
        """What gave this state."""
        suspicion = {name: scores.numpy() for name, scores in state_dict["suspicion"].items()}
        return cls(suspicion, state_dict["decision"].numpy(), CompromisedTokens(*state_dict["compromised"]))


@dataclass
class Findings:
    """What is known of N training pairs so far.

    Attributes:
        captions: The tokens of their captions.
        keys: Their keys, in the order of the shards.
        seen: What was measured, by name: similarities under ``poisoned``, ``overfitted`` and ``forgotten``, and what
            the pieces of evidence have observed.
        suspicion: How suspicious each pair is, by the piece of evidence; the last one ranks the pairs.
        decision: ``(N,)``, BENIGN, SUSPICIOUS (left out of everything) or POISONED (to be unlearnt).
        compromised: The tokens to be forgotten.
        about: What decided last, ``suspect``, ``look again`` or, of the n-th try, ``suspect n``; empty before.
        figures: What a decision rested on, by name: the split and the transfer of ``LookAgain``.
        tried: How many sets of suspects have had their turn.
        untried: Other suspects, to be tried where these turn out to be the wrong ones.
    """

    captions: CaptionTokens
    keys: list[str] = field(default_factory=list)
    seen: dict[str, Scores] = field(default_factory=dict)
    suspicion: dict[str, Scores] = field(default_factory=dict)
    decision: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    compromised: CompromisedTokens = field(default_factory=lambda: CompromisedTokens([], [], []))
    about: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    tried: int = 0
    untried: list[Suspects] = field(default_factory=list)

    def try_next(self) -> bool:
        """Take over the suspects that are to be tried next.

        Returns:
            Whether there were any.
        """
        if not self.untried:
            return False
        self.tried += 1
        suspects = self.untried.pop(0)
        self.suspicion, self.decision, self.compromised = suspects.suspicion, suspects.decision, suspects.compromised
        self.about, self.figures = "suspect" if self.tried == 1 else f"suspect {self.tried}", {}
        return True

    def having(self, decision: int) -> npt.NDArray[np.int64]:
        """Places of the pairs with a decision."""
        return np.flatnonzero(self.decision == decision)

    def keys_of(self, places: npt.NDArray[np.int64]) -> list[str]:
        """The keys at some places."""
        return [self.keys[place] for place in places.tolist()]

    def account(self) -> str:
        """What was found, in a line for the console."""
        if not self.about:
            return f"{len(self.keys):,} pairs"
        # Captions are other people's text: repr keeps escape codes out of a terminal.
        words = ", ".join(
            f"{word!r:.40} (lift {lift:.1f})"
            for word, lift in zip(self.compromised.words, self.compromised.lifts, strict=True)
        )
        return (
            f"{len(self.having(POISONED)):,} pairs to unlearn, {len(self.having(SUSPICIOUS)):,} suspicious, "
            f"{len(self.having(BENIGN)):,} benign; compromised: {words or 'nothing'}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data and tensors."""
        return {
            "captions": self.captions.state_dict(),
            "keys": list(self.keys),
            "seen": _tensors(self.seen),
            "suspicion": _tensors(self.suspicion),
            "decision": torch.from_numpy(self.decision),
            "compromised": [list(part) for part in self.compromised],
            "about": self.about,
            "figures": dict(self.figures),
            "tried": self.tried,
            "untried": [suspects.state_dict() for suspects in self.untried],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.captions.load_state_dict(state_dict["captions"])
        self.keys = list(state_dict["keys"])
        self.seen = {name: scores.numpy() for name, scores in state_dict["seen"].items()}
        self.suspicion = {name: scores.numpy() for name, scores in state_dict["suspicion"].items()}
        self.decision = state_dict["decision"].numpy()
        self.compromised = CompromisedTokens(*state_dict["compromised"])
        self.about = state_dict["about"]
        self.figures = dict(state_dict.get("figures", {}))
        self.tried = state_dict.get("tried", 1)
        self.untried = [Suspects.of_state(state) for state in state_dict.get("untried", [])]


def _tensors(scores: Mapping[str, Scores]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(score)) for name, score in scores.items()}


def divide(
    group: npt.NDArray[np.bool_], suspicion: Scores, poisoned: npt.NDArray[np.bool_], doubtful_share: float
) -> npt.NDArray[np.int8]:
    """Divide the data into poisoned, suspicious and benign pairs.

    Args:
        group: ``(N,)``, the pairs whose caption has a compromised token.
        suspicion: ``(N,)``.
        poisoned: ``(N,)``, the pairs to be unlearnt.
        doubtful_share: Share of the group, the most suspicious of it, that is retained no more than the poisoned.

    Returns:
        ``(N,)`` decisions.
    """
    decision = np.full(len(group), BENIGN, dtype=np.int8)
    if group.any() and doubtful_share > 0:
        places = np.flatnonzero(group)
        decision[places[most(suspicion[places], int(np.ceil(doubtful_share * len(places))))]] = SUSPICIOUS
    decision[poisoned] = POISONED
    return decision


def most(scores: Scores | npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Places of the highest numbers, the highest first; of equal ones the earlier."""
    descending = -np.nan_to_num(scores, nan=-np.inf).astype(np.float64)
    return np.argsort(descending, kind="stable")[: max(count, 0)]


def sample(places: Sequence[int] | npt.NDArray[np.int64], count: int, *seed: int) -> npt.NDArray[np.int64]:
    """Some of the places, drawn without putting back; all of them where there are no more."""
    places = np.asarray(places, dtype=np.int64)
    if len(places) <= count:
        return places
    return np.sort(np.random.default_rng(seed).choice(places, count, replace=False))
