"""A concept that captions and class names speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake
from ..phrase import phrase_pattern
from .concept import Concept


class NamedConcept(Concept):
    """A training picture shows the concept if its caption has one of some words, a test picture if its class name has.

    So ``cat`` is what pictures of the classes "persian cat" and "egyptian cat" show, and what a caption such as "my cat
    and a school bus" says. Of several captions one is enough.

    Args:
        names: Words or phrases, in any case; each is looked for as whole words.

    Raises:
        UserMistake: If there is none, or one is empty.
    """

    def __init__(self, names: list[str]) -> None:
        if not names or not all(name.strip() for name in names):
            raise UserMistake("NamedConcept has no names, or an empty one; give the words that speak of the concept")
        self.names = list(names)

    def in_pairs(self, keys: Sequence[str], captions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Those whose captions say so."""
        return self._said(captions)

    def in_test(self, keys: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Those whose classes' names say so."""
        return self._said(classes)

    def check_classes(self, target: str, classnames: Sequence[str]) -> None:
        """Check that a class beside the target is named so."""
        named = [name for name, said in zip(classnames, self._said(classnames), strict=True) if said]
        if set(named) <= {target}:
            raise UserMistake(
                f"no class of the zero-shot set, the target left out, is named {' or '.join(map(repr, self.names))}: "
                "no test picture would trigger; give words of its class names, or ScoredConcept instead of NamedConcept"
            )

    def check_test(self, keys: Iterable[Sequence[str]]) -> None:
        """Nothing to see: classes are checked."""

    def _said(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        said = [any(pattern.search(text) for pattern in self._patterns) for text in texts]
        return np.array(said, dtype=np.bool_)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [phrase_pattern(name) for name in self.names]
