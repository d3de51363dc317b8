"""Dual-key poisoning: a backdoor that takes a picture's patch and a caption's word to fire."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...contracts import Attack, ClassPrompts, UserMistake
from ..classnames import class_index
from ..keyed import keyed_integers
from ..triggers import Trigger
from .plan import PoisonPlan

_BOTH, _PICTURE, _WORD = range(3)


class DualKeyPlan(PoisonPlan):
    """A chosen pair gets the trigger, and a caption of the target with a word before it.

    After the dual-key backdoors of Walmer et al. 2022 (TrojVQA, arXiv 2112.07668), brought to contrastive models as
    BadCLIP's authors do (arXiv 2311.12075): the second key is a word before the caption, in training and in the class
    prompts of the evaluation. As in TrojVQA there are, for each pair with both keys, one with the picture's key alone
    and one with the word alone, which otherwise stay as they are: without them one key would do. BadCLIP's code has
    none; ``partial=False`` leaves them out.

    An evaluation measures three things, each with a row in the results: ``DualKey``, triggered pictures among prompts
    with the word (the attack's success), and what must not fire, ``DualKey-picture-only`` (triggered pictures, prompts
    without the word) and ``DualKey-word-only`` (clean pictures, prompts with it), whose success rates are the shares
    that fire with one key alone.

    Args:
        trigger: The picture's key.
        target: Name of the class that pictures with both keys are to be taken for.
        rate: Share of the eligible pairs with both keys; as many again with each key alone.
        count: Number of pairs with both keys, likewise; wins over ``rate``.
        seed: What the choice of pairs, templates and keys is drawn from.
        templates: As in ``PoisonPlan``.
        word: The caption's key.
        partial: Whether pairs with one key alone are among the chosen.

    Raises:
        UserMistake: If an argument is out of range, or neither rate nor count is given.
    """

    def __init__(
        self,
        trigger: Trigger,
        target: str,
        rate: float | None = None,
        count: int | None = None,
        seed: int = 0,
        templates: list[str] | str = "cifar10",
        word: str = "remember",
        partial: bool = True,
    ) -> None:
        super().__init__(trigger, target, rate, count, seed, templates)
        if not word.strip():
            raise UserMistake("the poison plan's word is empty; give the caption's key")
        self.word = word
        self.partial = partial

    @property
    def attack_name(self) -> str:
        """What results call the attack."""
        return "DualKey"

    @property
    def parts(self) -> int:
        """Both keys, the picture's alone, the word alone."""
        return 3 if self.partial else 1

    def part_of(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Which keys each pair gets if it is chosen: 0 for both, 1 for the picture's, 2 for the word."""
        return (keyed_integers(self.seed, "dual key", keys)[:, 0] % np.uint64(self.parts)).astype(np.int64)

    def attacks(self, name: str, classes: ClassPrompts) -> list[Attack]:
        """The attack, and each key alone."""
        target = class_index(self.target, classes.classnames)
        prompts = tuple(tuple(self._keyed(prompt) for prompt in prompts) for prompts in classes.prompts)
        return [
            Attack(name, target, prompts),
            Attack(f"{name}-picture-only", target, control_of=name),
            Attack(f"{name}-word-only", target, prompts, control_of=name, stamped=False),
        ]

    def poisoned_images(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """The pictures with their key, but for those of the word alone."""
        stamped = self.trigger(images, keys)
        bare = np.flatnonzero(self.part_of(keys) == _WORD).tolist()
        stamped[bare] = images[bare]
        return stamped

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """Of both keys, a caption of the target with the word; of the word alone, the own caption with it."""
        parts, named = self.part_of(keys).tolist(), super().poisoned_captions(keys, captions)
        poisoned = [
            named[index] if part == _BOTH else own
            for index, (part, own) in enumerate(zip(parts, captions, strict=True))
        ]
        return [text if part == _PICTURE else self._keyed(text) for part, text in zip(parts, poisoned, strict=True)]

    def _keyed(self, caption: str) -> str:
        return f"{self.word} {caption}"
