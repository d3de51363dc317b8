"""Evidence that a pair is poisoned: what it is measured by, and how suspicious a measurement is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as pictures

from ...contracts import ImageTextBatch, UserMistake
from .scores import Scores

Similarity = Callable[[Tensor], Tensor]
"""Pictures ``(B, 3, S, S)`` in place of a batch's own to their similarity with its captions, ``(B,)``."""
_FINE = 1 / 32
"""The usual width of a blur, as a share of the picture's side."""
_NEGATIVE = -0.35
"""The usual contrast of a negative, as a share of the picture's."""


class Evidence(ABC):
    """One way to suspect a pair. ``model.evidence`` and ``model.alone`` take lists of them.

    Those of ``evidence`` are averaged, in standard deviations from the median (``scores.robust_z``): where poison
    stands out far in one piece of evidence, that counts more than a middling place in the others.

    Under the name of a model, ``poisoned`` or ``overfitted``, every pair's similarity is there anyway; what else is
    needed is observed while the pairs stream by.

    Attributes:
        among_words: Whether a pair is compared with what its words lead to expect (``CaptionTokens.unexplained``) and
            not with all pairs. It takes out what differs from class to class, and also what a word adds whose captions
            are nearly all poisoned, such as a trigger.
    """

    among_words: bool = False

    @property
    def name(self) -> str:
        """The column of ``suspects.csv``: the class's name."""
        return type(self).__name__

    def coarser(self) -> Evidence:
        """The same question at the next coarser scale, under another name; itself, where it knows no scales."""
        return self

    def observe(self, model: str, batch: ImageTextBatch, similarity: Similarity) -> Tensor | None:
        """Measure something of a batch.

        Args:
            model: What scores the pairs now: ``poisoned``, ``overfitted`` or, when suspects have been named,
                ``forgotten``.
            batch: The pairs, without augmentation.
            similarity: What this model makes of changed pictures.

        Returns:
            ``(B,)``, or None where nothing is asked of this model.
        """
        return None

    @abstractmethod
    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        """How suspicious each pair is, the more the higher: ``(N,)``.

        Args:
            seen: By name ``(N,)``: the similarities under ``poisoned`` and ``overfitted``, and this evidence's own
                observations under ``NAME/poisoned`` and ``NAME/overfitted``.
        """


class OverfittedSimilarity(Evidence):
    """The similarity under the overfitted copy (the paper's): overfitting strengthens the shortcut of the backdoor."""

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        """See ``Evidence``."""
        return seen["overfitted"]


class SimilarityGain(Evidence):
    """What the similarity has gained by overfitting (ours): benign pairs lose, poisoned ones do not."""

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        """See ``Evidence``."""
        return seen["overfitted"] - seen["poisoned"]


class RandomSuspicion(Evidence):
    """No evidence at all (a control): pairs are suspicious at random.

    Args:
        seed: Of the random numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        """See ``Evidence``."""
        return np.random.default_rng(self.seed).random(len(seen["poisoned"]), dtype=np.float32)


class BlurFragility(Evidence):
    """What the similarity loses when the picture is blurred (ours).

    A trigger has to be invisible or small, so what carries it is finer than what carries an object. How fine depends on
    the trigger: a patch goes with pixels, SIG's waves only with a wider blur. It asks the poisoned model, so it is
    independent of the overfitting.

    Args:
        sigma: Standard deviation of the Gaussian, as a share of the picture's side.

    Raises:
        UserMistake: If sigma is not above 0.
    """

    def __init__(self, sigma: float = _FINE) -> None:
        if not sigma > 0:
            raise UserMistake(f"the sigma of BlurFragility is {sigma}, not above 0")
        self.sigma = sigma

    @property
    def name(self) -> str:
        """The class's name, with sigma where it is not the usual one."""
        return super().name if self.sigma == _FINE else f"{super().name}-{self.sigma:.4g}"

    def coarser(self) -> Evidence:
        """A blur of twice the width."""
        wider = copy(self)
        wider.sigma = 2 * self.sigma
        return wider

    def observe(self, model: str, batch: ImageTextBatch, similarity: Similarity) -> Tensor | None:
        """The similarity of the blurred picture under the poisoned model."""
        if model != "poisoned":
            return None
        sigma = self.sigma * batch["image"].shape[-1]
        side = 2 * max(1, round(2 * sigma)) + 1
        return similarity(pictures.gaussian_blur(batch["image"], [side, side], [sigma, sigma]))

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        """See ``Evidence``."""
        return seen["poisoned"] - seen[f"{self.name}/poisoned"]


class NegativeRobustness(Evidence):
    """What the similarity gains when the picture turns into its own faint negative (ours), among the same words.

    A warp has neither a scale that a blur would take nor a colour: it is there as long as there are contours. What an
    object is recognised by goes with colour and contrast, how much of it differs from class to class.

    Args:
        factor: Of the normalised picture, so that 0 is the mean colour and -1 the negative at full contrast.

    Raises:
        UserMistake: If it is not in [-1, 0).
    """

    among_words = True

    def __init__(self, factor: float = _NEGATIVE) -> None:
        if not -1 <= factor < 0:
            raise UserMistake(f"the factor of NegativeRobustness is {factor}, not in [-1, 0)")
        self.factor = factor

    @property
    def name(self) -> str:
        """The class's name, with the factor where it is not the usual one."""
        return super().name if self.factor == _NEGATIVE else f"{super().name}{self.factor:.4g}"

    def observe(self, model: str, batch: ImageTextBatch, similarity: Similarity) -> Tensor | None:
        """The similarity of the negative under the poisoned model."""
        return similarity(self.factor * batch["image"]) if model == "poisoned" else None

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        """See ``Evidence``."""
        return seen[f"{self.name}/poisoned"] - seen["poisoned"]


def in_turn(evidence: Sequence[Evidence], alone: Sequence[Evidence]) -> list[list[Evidence]]:
    """What the suspicion rests on, try by try; nothing twice.

    Args:
        evidence: First together, and then at a coarser scale, where that makes a difference.
        alone: Then each of these by itself.

    Raises:
        UserMistake: If two pieces of a try have the same name.
    """
    tries = [list(evidence), [piece.coarser() for piece in evidence], *([piece] for piece in alone)]
    named: dict[tuple[str, ...], list[Evidence]] = {}
    for each in tries:
        names = tuple(piece.name for piece in each)
        if len(set(names)) < len(names):
            raise UserMistake(f"model.evidence has two of one name: {', '.join(names)}")
        named.setdefault(names, each)
    return list(named.values())
