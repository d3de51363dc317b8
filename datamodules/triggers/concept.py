"""A trigger that is not put into pictures: a property that they have by themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .no_trigger import NoTrigger


class Concept(NoTrigger):
    """Says which pictures show a concept. Stamps nothing. Base of such triggers."""

    @abstractmethod
    def in_pairs(self, keys: Sequence[str], captions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of N training pictures show the concept.

        Args:
            keys: Their N keys.
            captions: Their N captions, as they were published; of several, one a line.

        Returns:
            ``(N,)``.

        Raises:
            UserMistake: If what says so cannot be read.
        """

    @abstractmethod
    def in_test(self, keys: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of N test pictures show the concept: ``(N,)``, given their keys and the names of their classes."""

    @abstractmethod
    def check_classes(self, target: str, classnames: Sequence[str]) -> None:
        """Check whether test pictures of these classes can show the concept and be no pictures of the target.

        Raises:
            UserMistake: If none can.
        """

    @abstractmethod
    def check_test(self, keys: Iterable[Sequence[str]]) -> None:
        """Check whether one of the test pictures can show the concept, given their keys, a shard at a time.

        Raises:
            UserMistake: If none can.
        """
