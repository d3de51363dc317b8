"""A concept whose score in each picture somebody else has found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake
from ...files.reading import shown
from ...files.tables import number, open_table, plain_cell
from .concept import Concept
from .given_file import checked_digest, read_file


class ScoredConcept(Concept):
    """A picture shows the concept if its score is above a threshold, as in the paper (arXiv 2503.09095).

    A table has the scores: a CSV file with the columns ``key`` and ``score``, such as the similarity of a clean CLIP
    between the picture and a text that names the concept. A picture that is not in the table does not show it.

    The training pairs' table is read when pairs are chosen, and by nothing else: the manifest names the chosen ones.
    The test pictures' is what an evaluation goes by, so it is read at once and known by its hash.

    Args:
        sigma: The threshold.
        scores: The table of the training pictures. Needed to choose pairs.
        test_scores: The table of the test pictures. Needed to validate and to test.
        test_sha256: The SHA-256 that the latter must have; None takes it as it is and records it here.

    Raises:
        UserMistake: If the threshold is no number, or a table cannot be read.
    """

    def __init__(
        self,
        sigma: float,
        scores: str | None = None,
        test_scores: str | None = None,
        test_sha256: str | None = None,
    ) -> None:
        if not math.isfinite(sigma):
            raise UserMistake(f"ScoredConcept's sigma is {sigma}; give a finite number")
        self.sigma, self.scores, self.test_scores, self.test_sha256 = sigma, scores, test_scores, test_sha256
        self._test_keys: frozenset[str] = frozenset()
        if test_scores is not None:
            content = read_file(test_scores, _WHAT)
            self.test_sha256 = checked_digest(test_scores, content, test_sha256, _WHAT)
            self._test_keys = _above(test_scores, sigma)

    def in_pairs(self, keys: Sequence[str], captions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Those whose scores in the training pictures' table are above the threshold."""
        return np.array([key in self._training_keys for key in keys], dtype=np.bool_)

    def in_test(self, keys: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Those whose scores in the test pictures' table are above the threshold."""
        return np.array([key in self._test_keys for key in keys], dtype=np.bool_)

    def check_classes(self, target: str, classnames: Sequence[str]) -> None:
        """Check that there is a table of test pictures."""
        if self.test_scores is None:
            raise UserMistake(
                "ScoredConcept has no test_scores: give the table that says which test pictures show the concept"
            )

    def check_test(self, keys: Iterable[Sequence[str]]) -> None:
        """Check that a test picture is in the table, above the threshold."""
        if not any(key in self._test_keys for some in keys for key in some):
            raise UserMistake(
                f"{_WHAT} {shown(str(self.test_scores))} has no picture of the zero-shot set with a score above "
                f"{self.sigma}: no test picture would trigger"
            )

    @cached_property
    def _training_keys(self) -> frozenset[str]:
        if self.scores is None:
            raise UserMistake("ScoredConcept has no scores: give the table of the training pictures' concept scores")
        return _above(self.scores, self.sigma)


_WHAT = "table of concept scores"


def _above(path: str, sigma: float) -> frozenset[str]:
    """The keys whose scores in a table are above a threshold.

    Raises:
        UserMistake: If it is no such table, a score is not a number, or a key stands twice.
    """
    scores: dict[str, float] = {}
    with open_table(path, _WHAT) as table:
        table.require("key")
        table.require("score")
        for row in table:
            where = f"{_WHAT} {shown(path)}, line {row.line}"
            if row.fault:
                raise UserMistake(f"{where}: {row.fault}; put such cells in quotes")
            key = plain_cell(row.cells["key"])
            score = number(row.cells["score"])
            if score is None:
                raise UserMistake(f"{where}: score {row.cells['score']!r:.40} is not a finite number")
            if key in scores:
                raise UserMistake(f"{where}: key {key!r:.80} stands twice")
            scores[key] = score
    return frozenset(key for key, score in scores.items() if score > sigma)
