"""Poison: plans with the pairs that they have chosen, as the stream and the evaluation use it."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...contracts import UserMistake
from .plan import PoisonPlan

log = logging.getLogger(__name__)


class Shards(Protocol):
    """What choosing asks of the data. A plan makes one pass; a list of plans one pass each."""

    def keys(self) -> Iterator[list[str]]:
        """The keys of all pairs, a shard at a time."""

    def captions(self) -> Iterator[tuple[list[str], list[str]]]:
        """The keys and captions of all pairs, a shard at a time. Called only if a plan needs captions."""


class Poison:
    """A list of plans and, for each, the keys of the pairs that it poisons. Picklable.

    Args:
        plans: The plans, at most 32,767.
        keys: The keys that each plan poisons; None where none is, as in an evaluation.

    Attributes:
        plans: The plans.
        keys: For each plan, the keys that it poisons.

    Raises:
        UserMistake: If a key stands twice.
    """

    def __init__(self, plans: Sequence[PoisonPlan], keys: Sequence[Sequence[str]] | None = None) -> None:
        self.plans = list(plans)
        self.keys: list[list[str]] = [[] for _ in plans] if keys is None else [list(chosen) for chosen in keys]
        self._plan_of: dict[str, int] = {}
        for index, chosen in enumerate(self.keys):
            for key in chosen:
                if key in self._plan_of:
                    raise UserMistake(f"key {key!r:.200} is poisoned twice; keys have to be unique over all shards")
                self._plan_of[key] = index

    @classmethod
    def from_plans(cls, plans: Sequence[PoisonPlan], shards: Shards, before: Sequence[Sequence[str]] = ()) -> Poison:
        """Choose the pairs of each plan.

        The plans are disjoint: a pair goes to the earliest plan that chooses it, and later ones do without it.

        Args:
            plans: The plans; earlier ones choose first.
            shards: The data.
            before: For each plan that chose before these, as for shards that are poisoned already, its keys: the pairs
                that are chosen are those of one list of all plans.

        Returns:
            The plans with their keys.

        Raises:
            UserMistake: If a plan finds too few eligible pairs, or a chosen key stands for two pairs.
        """
        poison, taken = cls([]), {key for keys in before for key in keys}
        for position, plan in enumerate(plans):
            pairs: Iterable[tuple[list[str], list[str] | None]] = (
                shards.captions() if plan.needs_captions else zip(shards.keys(), repeat(None), strict=False)
            )
            chosen = plan.choose(pairs, len(before) + position, taken=taken)
            poison = cls(plans[: position + 1], [*poison.keys, chosen])
            taken.update(chosen)
        return poison

    def found_in(self, shards: Shards) -> Poison:
        """The same plans for the pairs that some shards hold, of a manifest that may have been made for others.

        Raises:
            UserMistake: If the shards hold none of the poisoned pairs.
        """
        present: set[str] = set()
        for keys in iter(shards.keys()):
            present.update(key for key in keys if key in self._plan_of)
        wanted = len(self._plan_of)
        if wanted and not present:
            raise UserMistake(f"none of the {wanted} pairs that the poison manifest names is in these shards")
        if len(present) < wanted:
            log.warning(
                "%d of the %d pairs that the poison manifest names are not in these shards",
                wanted - len(present),
                wanted,
            )
        return Poison(self.plans, [[key for key in keys if key in present] for keys in self.keys])

    def without(self, left_out: Container[str]) -> Poison:
        """The same plans, without the pairs with these keys."""
        return Poison(self.plans, [[key for key in keys if key not in left_out] for keys in self.keys])

    def check(self, image_size: int, classnames: Sequence[str] | None = None) -> None:
        """Check every plan, as ``PoisonPlan.check``."""
        for plan in self.plans:
            plan.check(image_size, classnames)

    def plan_of(self, keys: Sequence[str]) -> npt.NDArray[np.int16]:
        """Which plan poisons each of N pairs: ``(N,)``, -1 for none."""
        return np.array([self._plan_of.get(key, -1) for key in keys], dtype=np.int16)

    def apply(self, images: Tensor, captions: list[str], keys: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Poison the chosen pairs of a batch and leave the others as they are.

        Args:
            images: Images, ``(N, 3, S, S)`` uint8; not changed.
            captions: N captions; not changed.
            keys: The N keys.

        Returns:
            Pictures and captions; the very arguments if no pair of the batch is poisoned.
        """
        parts = self._parts(keys)
        if not parts:
            return images, captions
        images = images.clone()
        for plan, rows in parts:
            where = torch.tensor(rows, device=images.device)
            images[where] = plan.poisoned_images(images[where], [keys[row] for row in rows])
        return images, _poisoned(captions, keys, parts)

    def captions(self, captions: Sequence[str], keys: Sequence[str]) -> list[str]:
        """The captions of N pairs as a training stream shows them: the chosen ones poisoned, the others as they are."""
        return _poisoned(captions, keys, self._parts(keys))

    def _parts(self, keys: Sequence[str]) -> list[tuple[PoisonPlan, list[int]]]:
        """The plans that poison some of N pairs, with the rows of these."""
        plan_of = self.plan_of(keys)
        used = np.unique(plan_of[plan_of >= 0]).tolist()
        return [(self.plans[index], np.flatnonzero(plan_of == index).tolist()) for index in used]


def _poisoned(captions: Sequence[str], keys: Sequence[str], parts: list[tuple[PoisonPlan, list[int]]]) -> list[str]:
    """N captions with those of some rows poisoned, each part by its plan."""
    shown = list(captions)
    for plan, rows in parts:
        poisoned = plan.poisoned_captions([keys[row] for row in rows], [captions[row] for row in rows])
        for row, caption in zip(rows, poisoned, strict=True):
            shown[row] = caption
    return shown
