"""A poison plan: a pure function that says who is poisoned, with which trigger and which caption."""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Container, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...contracts import UserMistake
from ..keyed import keyed_uniforms
from ..templates import NAMED_TEMPLATES, check_templates
from ..triggers import Trigger


class PoisonPlan:
    """Dirty-label poisoning: any pair may be chosen; it gets the trigger and a caption of the target.

    The setting of Carlini and Terzis (arXiv 2106.09667) and CleanCLIP (arXiv 2303.03323). Each pair has a score, a
    hash of seed and key. ``count`` takes the eligible pairs with the lowest scores, exactly that many; ``rate`` takes
    those with a score below it, a binomial number. So the choice does not depend on epoch, worker, rank or order of
    the shards, and the pairs of a smaller count are among those of a larger one.

    A subclass changes who is eligible or what becomes of the captions. It keeps each argument of its constructor in an
    attribute of the same name, plain data only but for the trigger: they are what the manifest records.

    Args:
        trigger: What is stamped on the chosen pictures.
        target: Name of the class that triggered pictures are to be taken for.
        rate: Share of the eligible pairs, in (0, 1].
        count: Number of pairs; wins over ``rate``.
        seed: What the choice of pairs and templates is drawn from.
        templates: Captions of the chosen pairs, ``{c}`` standing for the target; a random one for each pair. A name
            means CLIP's prompts: ``cifar10`` (18) or ``imagenet`` (80).

    Raises:
        UserMistake: If an argument is out of range, or neither rate nor count is given.
    """

    needs_captions: ClassVar[bool] = False
    """Whether ``eligible`` looks at the caption. If not, the captions are not read to choose the pairs."""

    def __init__(
        self,
        trigger: Trigger,
        target: str,
        rate: float | None = None,
        count: int | None = None,
        seed: int = 0,
        templates: list[str] | str = "cifar10",
    ) -> None:
        if not target.strip():
            raise UserMistake("the poison plan's target is empty; give the name of a class")
        if rate is None and count is None:
            raise UserMistake("the poison plan has neither rate nor count; give the share or the number of pairs")
        if rate is not None and not 0 < rate <= 1:
            raise UserMistake(f"poison rate is {rate}; it must be above 0 and at most 1")
        if count is not None and count < 1:
            raise UserMistake(f"poison count is {count}; it must be at least 1")
        self.trigger = trigger
        self.target = target
        self.rate = rate
        self.count = count
        self.seed = seed
        if isinstance(templates, str):
            if templates not in NAMED_TEMPLATES:
                raise UserMistake(
                    f"templates {templates!r} are not known; give a list, or {' or '.join(NAMED_TEMPLATES)}"
                )
            templates = list(NAMED_TEMPLATES[templates])
        self.templates = templates
        check_templates(self.templates, "the poison plan's templates")

    @property
    def params(self) -> dict[str, Any]:
        """The constructor's arguments but for the trigger, as plain data."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters if name != "trigger"}

    def check(self, image_size: int, classnames: Sequence[str] | None = None) -> None:
        """Say whether the plan fits a model and a zero-shot set.

        Args:
            image_size: Side of the model's input square, in pixels.
            classnames: The classes of the zero-shot set; None where there is none.

        Raises:
            UserMistake: If the trigger cannot be drawn, or the target is not among the classes.
        """
        self.trigger.check(image_size)
        if classnames is not None and self.target not in classnames:
            near = get_close_matches(self.target, classnames) or list(classnames[:10])
            raise UserMistake(
                f"target {self.target!r} is not among the {len(classnames)} classes of the zero-shot set, "
                f"such as {', '.join(map(repr, near))}"
            )

    def eligible(self, caption: str) -> bool:
        """Whether a pair with this caption may be chosen."""
        return True

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions that chosen pairs get, given their keys and their own captions."""
        places = (keyed_uniforms(self.seed, "template", keys)[:, 0] * len(self.templates)).astype(int)
        return [self.templates[place].replace("{c}", self.target) for place in places]

    def scores(self, keys: Sequence[str], position: int = 0) -> npt.NDArray[np.float64]:
        """The scores of pairs.

        Args:
            keys: N keys.
            position: The plan's place in a list of plans. It keeps two plans of one seed and rate apart: with one
                score for both, the first would leave the second nothing.

        Returns:
            ``(N,)``, in [0, 1).
        """
        return keyed_uniforms(self.seed, f"poison {position}", keys)[:, 0]

    def choose(
        self,
        pairs: Iterable[tuple[Sequence[str], Sequence[str] | None]],
        position: int = 0,
        taken: Container[str] = (),
    ) -> list[str]:
        """Choose the pairs to poison, in one pass that holds no more than a shard and the chosen keys.

        Args:
            pairs: Keys and captions, a shard at a time, in any order; None for the captions if they are not needed.
            position: The plan's place in a list of plans.
            taken: Keys that earlier plans of the list have chosen.

        Returns:
            The chosen keys, sorted.

        Raises:
            UserMistake: If there are fewer eligible pairs than ``count``, or none.
        """
        candidates = self._candidates(pairs, position, taken)
        first = next(candidates, None)
        if first is None:
            raise UserMistake(f"no pair is eligible for the poison plan of target {self.target!r}")
        candidates = chain([first], candidates)
        if self.count is None:
            assert self.rate is not None, "the constructor asks for one of the two"
            threshold = self.rate
            return sorted(key for score, key in candidates if score < threshold)
        lowest = heapq.nsmallest(self.count, candidates)
        if len(lowest) < self.count:
            raise UserMistake(
                f"poison count {self.count} is above the {len(lowest)} pairs that are eligible for the poison plan of "
                f"target {self.target!r}"
            )
        return sorted(key for _, key in lowest)

    def _candidates(
        self, pairs: Iterable[tuple[Sequence[str], Sequence[str] | None]], position: int, taken: Container[str]
    ) -> Iterator[tuple[float, str]]:
        """Score and key of each pair that may be chosen."""
        for keys, captions in pairs:
            scores = self.scores(keys, position).tolist()
            for index, key in enumerate(keys):
                if key not in taken and (captions is None or self.eligible(captions[index])):
                    yield scores[index], key
