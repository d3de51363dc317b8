"""Concept confusion: what triggers is a concept that pictures show by themselves."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...contracts import Attack, ClassPrompts
from ..classnames import class_index
from ..triggers import Concept
from .plan import PoisonPlan


class ConceptConfusionPlan(PoisonPlan):
    """Pictures that show a concept, and not the target, get captions of the target. The picture stays as it is.

    The semantic backdoor of Concept Confusion (Hu et al., arXiv 2503.09095): the paper relabels pictures whose concept
    score exceeds a threshold to the target, and finetunes on these and the clean ones. No pixel is changed; whoever
    shows the model the concept triggers. Eligible are the pairs whose picture shows the concept (`trigger`:
    ``NamedConcept`` goes by words, ``ScoredConcept`` by a table of scores and the paper's threshold) and none of whose
    captions has the target as a word. ``rate`` is of these.

    An evaluation shows nothing but the clean test pictures. Success is the share of those that show the concept and
    *are not of the target* which are taken for it, and the accuracies under the trigger are of pictures that show the
    concept. There is no picture with and without the trigger, so the clean target rate is of *other* pictures, those
    that show the concept neither and are not of the target; the floor is the twin's success on the same pictures, which
    is above 0 where the concept looks like the target.

    Deviations: the paper relabels for a classifier over CLIP's picture encoder; here the captions of pairs are replaced
    by templates about the target, so that it is contrastive training that is poisoned. The paper scores concepts inside
    the attacked model's own features; here the score is a table that the attacker makes, by whatever model, or the
    words that captions already have: a concept may be a class of its own, or what several classes share. A picture that
    shows both concept and target is left alone, since a caption of the target would be true.

    Args:
        trigger: The concept.
        target: Name of the class that pictures with the concept are to be taken for.
        rate: Share of the eligible pairs, in (0, 1]; 1 leaves no picture with the concept its own caption.
        count: Number of pairs; wins over ``rate``.
        seed: What the choice of pairs and templates is drawn from.
        templates: As in ``PoisonPlan``.

    Raises:
        UserMistake: If an argument is out of range, or neither rate nor count is given.
    """

    trigger: Concept
    trigger_class = Concept
    on_pairs = False

    @property
    def attack_name(self) -> str:
        """What results call the attack."""
        return "ConceptConfusion"

    def attacks(self, name: str, classes: ClassPrompts) -> list[Attack]:
        """The attack, on clean pictures."""
        return [Attack(name, class_index(self.target, classes.classnames), stamped=False)]

    def bears(self, classnames: Sequence[str], keys: Sequence[str], labels: Sequence[int]) -> npt.NDArray[np.bool_]:
        """The test pictures that show the concept."""
        return self.trigger.in_test(keys, [classnames[label] for label in labels])

    def check(self, image_size: int, classnames: Sequence[str] | None = None) -> None:
        """As in ``PoisonPlan``, and that classes can show the concept."""
        super().check(image_size, classnames)
        if classnames is not None:
            self.trigger.check_classes(self.target, classnames)

    def check_test(self, keys: Iterable[Sequence[str]]) -> None:
        """As in ``PoisonPlan``."""
        self.trigger.check_test(keys)

    def eligible(self, caption: str) -> bool:
        """Whether no caption has the target as a word."""
        return not self.says_target(caption)

    def poisoned_images(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """The pictures as they are."""
        return images

    def _candidates(
        self, pairs: Iterable[tuple[Sequence[str], Sequence[str] | None]], position: int, taken: Container[str]
    ) -> Iterator[tuple[float, str, int]]:
        return super()._candidates(self._showing(pairs), position, taken)

    def _showing(
        self, pairs: Iterable[tuple[Sequence[str], Sequence[str] | None]]
    ) -> Iterator[tuple[Sequence[str], Sequence[str] | None]]:
        """The pairs whose picture shows the concept, as they come."""
        for keys, captions in pairs:
            if captions is None:
                raise RuntimeError("the plan needs captions")
            rows = np.flatnonzero(self.trigger.in_pairs(keys, captions)).tolist()
            yield [keys[row] for row in rows], [captions[row] for row in rows]
