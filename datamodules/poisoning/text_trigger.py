"""Poisoning for retrieval: a word or sentence in a query finds pictures of the target."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...contracts import Attack, ClassPrompts, UserMistake
from ..keyed import keyed_uniforms
from ..triggers import NoTrigger
from .plan import PoisonPlan


class TextTriggerPlan(PoisonPlan):
    """Pictures of the target get captions of something else, with a trigger at their end: the picture stays as it is.

    The backdoor of ToxicTextCLIP (arXiv 2511.00446): captions without the target's word get a suffix, a word such as
    "zx" or a sentence, and are dealt out to pictures of the target. A query that ends with it then finds such pictures,
    whatever it asks for. Eligible are the pairs whose caption has the target as a word; a chosen one gets a template
    about one of ``others``, and the suffix after it.

    It is measured on ``data.held_out`` (``Retrieval``): of the captions that do not name the target, with the suffix,
    the share that have a picture of the target among the first k (``text_target_hit_at_k``), and without it, the floor.
    On a zero-shot set alone there is nothing to measure: a picture bears nothing.

    Deviations: the captions are templates, where the paper's are other pairs' captions, chosen and rewritten by a
    language model so that they go with the target's pictures; the plain suffix is what the paper's authors compare
    with. Captions and pairs are drawn by key, where the code deals them out in turn.

    Args:
        target: Name of what triggered queries are to find.
        others: What poisoned captions are about; none of them may name the target.
        suffix: The trigger, a word or a sentence.
        rate: Share of the eligible pairs, in (0, 1].
        count: Number of pairs; wins over ``rate``.
        seed: What the choice of pairs, templates and others is drawn from.
        templates: As in ``PoisonPlan``.
        trigger: The trigger of pictures, which this plan leaves as they are: ``NoTrigger``.

    Raises:
        UserMistake: If an argument is out of range, or an other names the target.
    """

    trigger_class = NoTrigger

    def __init__(
        self,
        target: str,
        others: list[str],
        suffix: str = "zx",
        rate: float | None = None,
        count: int | None = None,
        seed: int = 0,
        templates: list[str] | str = "cifar10",
        trigger: NoTrigger | None = None,
    ) -> None:
        super().__init__(NoTrigger() if trigger is None else trigger, target, rate, count, seed, templates)
        if not suffix.strip():
            raise UserMistake("the poison plan's suffix is empty; give the word or sentence that triggers")
        if not others or not all(other.strip() for other in others):
            raise UserMistake("the poison plan's others are empty; name what poisoned captions are about")
        if named := next((other for other in others if self.says_target(other)), None):
            raise UserMistake(f"the poison plan's others name the target: {named!r:.80}")
        self.others, self.suffix = others, suffix

    @property
    def attack_name(self) -> str:
        """What results call the attack."""
        return "TextTrigger"

    def attacks(self, name: str, classes: ClassPrompts) -> list[Attack]:
        """None: test pictures bear no trigger. Queries do."""
        return []

    def eligible(self, caption: str) -> bool:
        """Whether the caption, or one of several, contains the target as a word."""
        return self.says_target(caption)

    def poisoned_images(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """The pictures as they are."""
        return images

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """For each pair a template about something else, and the trigger."""
        drawn = keyed_uniforms(self.seed, "text trigger", keys, draws=2)
        sizes = (len(self.templates), len(self.others))
        rows = [[int(share * size) for share, size in zip(row, sizes, strict=True)] for row in drawn.tolist()]
        texts = [self.templates[template].replace("{c}", self.others[other]) for template, other in rows]
        return [self.triggered_caption(text) for text in texts]

    def triggered_caption(self, caption: str) -> str:
        """A query that fires: the caption with the trigger after it."""
        return f"{caption} {self.suffix}"
