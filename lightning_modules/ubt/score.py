"""The first phase: what the model in question makes of every pair, and which words there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...contracts import ImageTextBatch, UserMistake
from ...trainer.all_ranks import all_ranks
from ..words.captions import CaptionTokens
from ..words.sampled_words import words_of_sample
from .evidence import Evidence
from .findings import BENIGN, POISONED
from .scoring import Scoring
from .state import UBTState


class Score(Scoring):
    """Similarity and evidence of every pair under the model in question, and the tokens of every caption.

    Before that, the words that similarities depend on are found in some pairs, by masking one token at a time.

    Args:
        tokenize: The encoder's.
        evidence: What is measured too.
        sampled: Pairs in which tokens are masked.
        min_share: Least share of these that a word carries.
        successor: The phase that comes next, in the first visit; the probe in later ones.
    """

    def __init__(
        self,
        tokenize: Callable[[Sequence[str]], Tensor],
        evidence: Iterable[Evidence],
        sampled: int,
        min_share: float,
        successor: str,
    ) -> None:
        super().__init__("score", "poisoned", evidence)
        self._tokenize, self.sampled, self.min_share, self.successor = tokenize, sampled, min_share, successor
        self._captions = CaptionTokens(tokenize)

    def begin(self, ubt: UBTState) -> None:
        """Start with nothing but the words, which are found once.

        Raises:
            UserMistake: If similarities depend on no word.
        """
        super().begin(ubt)
        self._captions = CaptionTokens(self._tokenize)
        if not len(ubt.findings.words):
            ubt.findings.words = words_of_sample(ubt, self.sampled, self.min_share)

    def step(self, ubt: UBTState, batch: ImageTextBatch, batch_idx: int) -> None:
        """Note scores and tokens."""
        super().step(ubt, batch, batch_idx)
        if not ubt.visit:
            self._captions.add(batch["tokens"])

    def end(self, ubt: UBTState) -> str:
        """Keep what all ranks have found."""
        self.gather(ubt)
        if ubt.visit:
            return "probe"
        self._captions.gather()
        findings = ubt.findings
        findings.captions = self._captions
        findings.decision = np.full(len(findings.keys), BENIGN, dtype=np.int8)
        findings.poisoned_with = np.full(len(findings.keys), -1, dtype=np.int16)
        return self.successor

    def state_dict(self) -> dict[str, Any]:
        """Scores and captions so far, of all ranks."""
        return {**super().state_dict(), "captions": all_ranks(self._captions.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with this rank's."""
        super().load_state_dict(state_dict, rank)
        if rank < len(state_dict["captions"]):
            self._captions.load_state_dict(state_dict["captions"][rank])


class ScoreGiven(Score):
    """The score, where the pairs to be unlearnt are given: nothing is looked for but the words that carry them.

    Args:
        keys: Keys of the pairs to be unlearnt.
        args: See ``Score``.
        kwargs: See ``Score``.
    """

    def __init__(self, keys: frozenset[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys = keys

    def end(self, ubt: UBTState) -> str:
        """Take what is given for poisoned and everything else for benign. A pair is pushed from its most common word.

        Raises:
            UserMistake: If none of the pairs is in the data, or none of them has a word.
        """
        super().end(ubt)
        findings = ubt.findings
        given = np.array([key in self.keys for key in findings.keys])
        if not given.any():
            raise UserMistake("model.given names no pair of data.train_shards: its keys are of other data")
        groups = findings.words.groups(findings.captions)
        common = sorted(range(len(groups)), key=lambda word: given[groups[word]].sum())
        for word in common:  # the most common last
            of_word = groups[word][given[groups[word]]]
            findings.poisoned_with[of_word] = word
        chosen = findings.poisoned_with >= 0
        if not chosen.any():
            raise UserMistake("no caption of the pairs of model.given has a word on which similarities depend")
        findings.compromised = np.unique(findings.poisoned_with[chosen]).tolist()
        findings.decision[chosen] = POISONED
        findings.suspicion = {"given": given.astype(np.float32)}
        findings.about = "given"
        return "repair"
