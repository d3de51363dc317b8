"""A poison plan: a pure function that says which pairs are poisoned, with which trigger and which caption."""

from __future__ import annotations

import heapq
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...contracts import Attack, ClassPrompts, UserMistake
from ..arguments import kept_arguments
from ..classnames import class_index
from ..keyed import keyed_uniforms
from ..phrase import phrase_pattern
from ..shards.samples import caption_lines
from ..templates import NAMED_TEMPLATES, check_templates
from ..triggers import Trigger


class PoisonPlan:
    """Dirty-label poisoning: any pair may be chosen; it gets the trigger and a caption of the target.

    The setting of Carlini and Terzis (arXiv 2106.09667) and CleanCLIP (arXiv 2303.03323). Each pair has a score, a
    hash of seed and key. ``count`` takes the eligible pairs with the lowest scores, exactly that many; ``rate`` takes
    those with a score below it, a binomial number. So the choice does not depend on epoch, worker, rank or order of
    the shards, and the pairs of a smaller count are among those of a larger one.

    A subclass changes which pairs are eligible, what becomes of the chosen pairs, or what an evaluation measures. It
    keeps each argument of its constructor in an attribute of the same name, plain data only but for the trigger: they
    are what the manifest records. Where chosen pairs are not all treated alike, ``part_of`` says by key which treatment
    a pair would get, and ``rate`` and ``count`` hold for each part.

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
    """Whether ``eligible`` looks at the caption. If not, the captions are not read to choose the pairs. True of a
    subclass that writes ``eligible``, unless it says otherwise."""
    measured: ClassVar[bool] = True
    """Whether an evaluation measures what the plan does."""
    on_pairs: ClassVar[bool] = True
    """Whether what the plan does can be measured on pairs without classes, by retrieval."""
    trigger_class: ClassVar[type] = Trigger
    """What the trigger has to be."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "eligible" in vars(cls) and "needs_captions" not in vars(cls):
            cls.needs_captions = True

    def __init__(
        self,
        trigger: Trigger,
        target: str,
        rate: float | None = None,
        count: int | None = None,
        seed: int = 0,
        templates: list[str] | str = "cifar10",
    ) -> None:
        if not isinstance(trigger, self.trigger_class):
            wanted = self.trigger_class.__name__
            raise UserMistake(f"{type(self).__name__}'s trigger is {type(trigger).__name__}; it has to be {wanted}")
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
        return kept_arguments(self, "trigger")

    @property
    def attack_name(self) -> str:
        """What results call the attack: the trigger's class name."""
        return type(self.trigger).__name__

    @property
    def parts(self) -> int:
        """How many treatments there are for chosen pairs."""
        return 1

    def part_of(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Which treatment each of N pairs gets if it is chosen, ``(N,)`` in [0, parts), all equally likely."""
        return np.zeros(len(keys), dtype=np.int64)

    def attacks(self, name: str, classes: ClassPrompts) -> list[Attack]:
        """What an evaluation measures on test pictures that bear the trigger.

        Args:
            name: What the attack is called in this run.
            classes: The classes of the zero-shot set, the target among them.
        """
        return [Attack(name, class_index(self.target, classes.classnames))]

    def bears(self, classnames: Sequence[str], keys: Sequence[str], labels: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which test pictures trigger by themselves. Asked of an attack that is no control and not stamped.

        Args:
            classnames: The classes of the zero-shot set.
            keys: N keys.
            labels: The N pictures' classes.

        Returns:
            ``(N,)``.
        """
        return np.zeros(len(keys), dtype=np.bool_)

    def given_pictures(self, image_size: int) -> Tensor | None:
        """The pictures ``(P, 3, S, S)`` uint8 that an evaluation shows instead of test pictures; None for these."""
        return None

    def triggered_caption(self, caption: str) -> str | None:
        """A query that fires, made of a caption; None where it is the picture that bears the trigger."""
        return None

    def check(self, image_size: int, classnames: Sequence[str] | None = None) -> None:
        """Check whether the plan fits a model and a zero-shot set.

        Args:
            image_size: Side of the model's input square, in pixels.
            classnames: The classes of the zero-shot set; None where there is none.

        Raises:
            UserMistake: If the trigger cannot be drawn or breaks its promises, or the target is not the name of one
                class.
        """
        self.trigger.check_promises(image_size)
        if classnames is not None:
            class_index(self.target, classnames)

    def check_test(self, keys: Iterable[Sequence[str]]) -> None:
        """Check whether test pictures with these keys, a shard at a time, can trigger.

        Raises:
            UserMistake: If none can.
        """

    def eligible(self, caption: str) -> bool:
        """Whether a pair with this caption may be chosen."""
        return True

    def says_target(self, caption: str) -> bool:
        """Whether the caption, or one of several, one a line, has the target as whole words, in any case."""
        return any(self._target_pattern.search(line) for line in caption_lines(caption))

    def poisoned_images(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """The pictures that chosen pairs get, ``(N, 3, S, S)`` uint8, given their own and their keys.

        An evaluation stamps test pictures with the trigger itself, and does not call this.
        """
        return self.trigger(images, keys)

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions that chosen pairs get, given their keys and their own captions."""
        indices = (keyed_uniforms(self.seed, "template", keys)[:, 0] * len(self.templates)).astype(int)
        return [self.templates[index].replace("{c}", self.target) for index in indices]

    def scores(self, keys: Sequence[str], position: int = 0) -> npt.NDArray[np.float64]:
        """The scores of pairs.

        Args:
            keys: N keys.
            position: The plan's index in a list of plans. It keeps two plans of one seed and rate apart: with one
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
            position: The plan's index in a list of plans.
            taken: Keys that earlier plans of the list have chosen.

        Returns:
            The chosen keys, sorted.

        Raises:
            UserMistake: If there are fewer eligible pairs than ``count`` asks for, or none.
        """
        threshold = 2.0 if self.rate is None else self.rate * self.parts
        if self.count is None and threshold > 1:
            raise UserMistake(
                f"poison rate {self.rate} holds for each of {self.parts} parts: it can be at most {1 / self.parts:.3g}"
            )
        found = [0] * self.parts
        kept: list[list[tuple[float, str]]] = [[] for _ in range(self.parts)]
        for score, key, part in self._candidates(pairs, position, taken):
            found[part] += 1
            if self.count is not None or score < threshold:
                kept[part].append((score, key))
            if self.count is not None and len(kept[part]) > 2 * self.count + 1024:
                kept[part] = heapq.nsmallest(self.count, kept[part])
        self._check_found(found)
        # Of a rate all are taken.
        chosen = [heapq.nsmallest(self.count or len(part), part) for part in kept]
        return sorted(key for part in chosen for _, key in part)

    def _candidates(
        self, pairs: Iterable[tuple[Sequence[str], Sequence[str] | None]], position: int, taken: Container[str]
    ) -> Iterator[tuple[float, str, int]]:
        """Score, key and part of each pair that may be chosen."""
        for keys, captions in pairs:
            scores, parts = self.scores(keys, position).tolist(), self.part_of(keys).tolist()
            for index, key in enumerate(keys):
                if key not in taken and (captions is None or self.eligible(captions[index])):
                    yield scores[index], key, parts[index]

    def _check_found(self, found: Sequence[int]) -> None:
        """Check that each part has the pairs that it needs."""
        if not any(found):
            raise UserMistake(f"no pair is eligible for the poison plan of target {self.target!r}")
        if self.count is not None and min(found) < self.count:
            part = "" if self.parts == 1 else f" in one of its {self.parts} parts"
            raise UserMistake(
                f"poison count {self.count} is above the {min(found)} pairs that are eligible for the poison plan of "
                f"target {self.target!r}{part}"
            )

    @cached_property
    def _target_pattern(self) -> re.Pattern[str]:
        return phrase_pattern(self.target)
