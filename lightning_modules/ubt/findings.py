"""The findings that UBT's phases pass on: scores and sets of pairs, no pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...key_list import KeyList
from ..phased.scores import Scores
from ..words.captions import CaptionTokens
from ..words.words import Words

BENIGN, SUSPICIOUS, POISONED = range(3)
Indices = npt.NDArray[np.int64]


@dataclass
class Turn:
    """Which words a round is at.

    Attributes:
        group: The group of words whose turn it is to be probed.
        focus: Words that are probed by themselves, as they stood out, and by which evidence; empty otherwise.
        gently: Whether that is done at a lower rate, as nothing but the probe speaks against them.
        new: How many words were found in this round so far.
    """

    group: int = 0
    focus: dict[int, str] = field(default_factory=dict)
    gently: bool = False
    new: int = 0


@dataclass
class Findings:
    """What is known of N training pairs so far.

    Attributes:
        captions: The tokens of their captions.
        words: The words that similarities depend on.
        keys: Their keys, in the order of the shards.
        seen: What was measured, by name ``(N,)``: similarities under ``poisoned``, ``overfitted`` and ``probed``, the
            index of the best word of each picture under ``MODEL/word``, and evidence under ``MODEL/EVIDENCE``.
        suspicion: How suspicious each pair is, by the piece of evidence; the last one ranks the pairs.
        decision: ``(N,)``, BENIGN, SUSPICIOUS (left out of everything) or POISONED (to be unlearnt).
        poisoned_with: ``(N,)``, for each poisoned pair the index of the word that it is pushed from; else -1.
        compromised: Indices of the words of which a backdoor was found.
        turn: Which words the round is at.
        about: The phase that decided last; empty before.
        verdicts: What was said of each word, round by round, as plain data.
    """

    captions: CaptionTokens
    words: Words = field(default_factory=Words)
    keys: KeyList = field(default_factory=KeyList)
    seen: dict[str, Scores] = field(default_factory=dict)
    suspicion: dict[str, Scores] = field(default_factory=dict)
    decision: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    poisoned_with: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    compromised: list[int] = field(default_factory=list)
    turn: Turn = field(default_factory=Turn)
    about: str = ""
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def compromised_words(self) -> list[str]:
        """The words of which a backdoor was found, as they are written."""
        return [self.words.spelt[word] for word in self.compromised]

    def having(self, decision: int) -> Indices:
        """Indices of the pairs with a decision."""
        return np.flatnonzero(self.decision == decision)

    def keys_of(self, indices: Indices) -> list[str]:
        """The keys at some indices."""
        return [self.keys[index] for index in indices.tolist()]

    def account(self) -> str:
        """What was found, in a line for the console."""
        if not self.about:
            return f"{len(self.keys):,} pairs, {len(self.words):,} words"
        # Captions are other people's text: repr keeps escape codes out of a terminal.
        words = ", ".join(f"{word!r:.40}" for word in self.compromised_words)
        return (
            f"{len(self.having(POISONED)):,} pairs to unlearn, {len(self.having(SUSPICIOUS)):,} suspicious, "
            f"{len(self.having(BENIGN)):,} benign; compromised: {words or 'nothing'}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data and tensors."""
        return {
            "captions": self.captions.state_dict(),
            "words": self.words.state_dict(),
            "keys": self.keys.state_dict(),
            "seen": _tensors(self.seen),
            "suspicion": _tensors(self.suspicion),
            "decision": torch.from_numpy(self.decision),
            "poisoned_with": torch.from_numpy(self.poisoned_with),
            "compromised": list(self.compromised),
            "group": self.turn.group,
            "focus": dict(self.turn.focus),
            "gently": self.turn.gently,
            "new": self.turn.new,
            "about": self.about,
            "verdicts": list(self.verdicts),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.captions.load_state_dict(state_dict["captions"])
        self.words = Words.of_state(state_dict["words"])
        self.keys = KeyList.of(state_dict["keys"])
        self.seen = {name: scores.numpy() for name, scores in state_dict["seen"].items()}
        self.suspicion = {name: scores.numpy() for name, scores in state_dict["suspicion"].items()}
        self.decision = state_dict["decision"].numpy()
        self.poisoned_with = state_dict["poisoned_with"].numpy()
        self.compromised = list(state_dict["compromised"])
        gently = state_dict.get("gently", False)  # a checkpoint of before has none
        self.turn = Turn(state_dict["group"], dict(state_dict["focus"]), gently, state_dict["new"])
        self.about, self.verdicts = state_dict["about"], list(state_dict["verdicts"])


def _tensors(scores: Mapping[str, Scores]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(score)) for name, score in scores.items()}


def most(scores: Scores | npt.NDArray[np.float64], count: int) -> Indices:
    """Indices of the highest numbers, the highest first; of equal ones the earlier."""
    descending = -np.nan_to_num(scores, nan=-np.inf).astype(np.float64)
    return np.argsort(descending, kind="stable")[: max(count, 0)]


def sample(indices: Sequence[int] | Indices, count: int, *seed: int) -> Indices:
    """Some of the indices, drawn without putting back; all of them where there are no more."""
    indices = np.asarray(indices, dtype=np.int64)
    if len(indices) <= count:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, count, replace=False))
