"""What a user gives where pairs are to be poisoned, and what becomes of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jsonargparse.typing import register_type

from ...contracts import UserMistake
from ...reading import shown
from .manifest import read_manifest
from .plan import PoisonPlan
from .poison import Poison, Shards


class ManifestPath(os.PathLike[str]):
    """The path of a ``poison.json``, as an option or a config names it.

    Untrusted: where a class may stand, jsonargparse reads a file that is named there as the class's settings, and
    imports what they name. So the type says that this is a path, and asks before it looks for a class. It is no text,
    since a text that an option has had is taken for a class when a part of it is changed.

    Args:
        value: A text that names a file: it has a folder or ends as one, or there is such a file.

    Raises:
        ValueError: If it is anything else, such as the name of a class.
    """

    def __init__(self, value: object) -> None:
        if type(value) is not str or value.lstrip().startswith(("{", "[")):  # settings, as an option has them
            raise ValueError("it names no file")
        if not ("/" in value or "\\" in value or value.lower().endswith(_FILES) or os.path.isfile(value)):
            raise ValueError("it names no file")
        self._path = value

    def __fspath__(self) -> str:
        """The path."""
        return self._path

    def __str__(self) -> str:
        """The path."""
        return self._path


_FILES = (".json", ".yaml", ".yml")


def _as_given(value: object) -> str:
    """The path for a config that is saved; jsonargparse asks with plans too, as it tries each type."""
    return str(value if isinstance(value, ManifestPath) else ManifestPath(value))


register_type(ManifestPath, serializer=_as_given)

if TYPE_CHECKING:
    PoisonSpec = PoisonPlan | list[PoisonPlan] | str | os.PathLike[str] | None
    """A plan, a list of plans, the path of a ``poison.json``, or nothing."""
else:  # the order in which jsonargparse tries them
    PoisonSpec = ManifestPath | PoisonPlan | list[ManifestPath | PoisonPlan] | None


def plans_of(spec: PoisonSpec) -> list[PoisonPlan]:
    """The plans that a user gives, in their order.

    Raises:
        UserMistake: If a manifest cannot be read, or a list has no plan, or something else than plans.
    """
    if spec is None:
        return []
    if isinstance(spec, str | os.PathLike):
        return read_manifest(spec).plans
    plans = [spec] if isinstance(spec, PoisonPlan) else spec
    if not plans:
        raise UserMistake("the list of poison plans is empty: give at least one plan, or nothing instead of a list")
    for plan in plans:
        if not isinstance(plan, PoisonPlan):
            raise UserMistake(f"a list of poison plans has {str(plan)!r:.200}, but a manifest stands alone")
    return plans


def poison_of(spec: PoisonSpec, shards: Shards, image_size: int) -> Poison | None:
    """Plans with the pairs of some shards that they poison; None for nothing.

    Args:
        spec: Plans choose their pairs; a manifest names them.
        shards: The data.
        image_size: Side of the model's input square, in pixels.

    Raises:
        UserMistake: If a manifest cannot be read or names no pair, a plan does not fit the input, or the shards lack
            the pairs.
    """
    if spec is None:
        return None
    given = read_manifest(spec) if isinstance(spec, str | os.PathLike) else Poison(plans_of(spec))
    if isinstance(spec, str | os.PathLike) and not any(given.keys):
        raise UserMistake(f"poison manifest {shown(spec)} names no pair: nothing would be poisoned")
    given.check(image_size)  # before the pass over the data
    return given.found_in(shards) if isinstance(spec, str | os.PathLike) else Poison.from_plans(given.plans, shards)


def named(plans: Iterable[PoisonPlan]) -> dict[str, PoisonPlan]:
    """The plans that an evaluation measures, by what results call them: ``BadNet``, ``BadNet-2``, ..."""
    attacks: dict[str, PoisonPlan] = {}
    numbers: Counter[str] = Counter()
    for plan in plans:
        if plan.measured:
            base = plan.attack_name
            numbers[base] += 1
            attacks[f"{base}-{numbers[base]}" if numbers[base] > 1 else base] = plan
    return attacks
