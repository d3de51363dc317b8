"""The values that ``data.poison`` and ``data.attack`` accept, and the plans and poisoned pairs that they stand for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING

from jsonargparse.typing import register_type

from ...contracts import UserMistake
from ...files.reading import shown
from ...run_folder.manifest import MANIFEST, PlanRecord
from .manifest import read_manifest
from .plan import PoisonPlan
from .poison import Poison, Shards

_FILE_ENDINGS = (".json", ".yaml", ".yml")


class ManifestPath(os.PathLike[str]):
    """The path of a ``poison.json``, as an option or a config gives it.

    The file is untrusted. Where an option takes a class, jsonargparse reads a path as a file of settings for a class,
    and imports the class that they name. jsonargparse tries this type first, so that it never opens the file. The type
    is no ``str``, because jsonargparse takes a string for the name of a class when a nested option is overridden.

    Args:
        value: A string that has a directory, ends in ``.json``, ``.yaml`` or ``.yml``, or names an existing file.

    Raises:
        ValueError: If it is anything else, such as the name of a class.
    """

    def __init__(self, value: object) -> None:
        if type(value) is not str or value.lstrip().startswith(("{", "[")):  # settings, as an option has them
            raise ValueError("it names no file")
        if not ("/" in value or "\\" in value or value.lower().endswith(_FILE_ENDINGS) or os.path.isfile(value)):
            raise ValueError("it names no file")
        self._path = value

    def __fspath__(self) -> str:
        """The path."""
        return self._path

    def __str__(self) -> str:
        """The path."""
        return self._path


def _as_given(value: object) -> str:
    """The path for a config that is saved. jsonargparse also calls this with plans, as it tries each type."""
    return str(value if isinstance(value, ManifestPath) else ManifestPath(value))


register_type(ManifestPath, serializer=_as_given)

if TYPE_CHECKING:
    PoisonSpec = PoisonPlan | list[PoisonPlan] | str | os.PathLike[str] | None
    """A plan, a list of plans, the path of a ``poison.json``, or nothing."""
else:  # the order in which jsonargparse tries them
    PoisonSpec = ManifestPath | PoisonPlan | list[ManifestPath | PoisonPlan] | None


def plans_of(spec: PoisonSpec) -> list[PoisonPlan]:
    """The poison plans that a user gives, in order.

    Args:
        spec: Plans as they are, or a manifest whose plans are read.

    Returns:
        The plans; empty for None.

    Raises:
        UserMistake: If a manifest cannot be read, or a list is empty or holds anything but plans.
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


def poison_of(spec: PoisonSpec, shards: Shards, image_size: int, marks: Sequence[PlanRecord] = ()) -> Poison | None:
    """The plans that a user gives, with the pairs of some shards that they poison.

    Args:
        spec: Plans, which choose their pairs, or a manifest, which names them.
        shards: Shards of the pairs.
        image_size: Side of the model's input square, in pixels.
        marks: What is stamped into the shards already (``read_marks``): these pairs are not chosen again.

    Returns:
        The plans with the keys of their pairs; None where ``spec`` is None.

    Raises:
        UserMistake: If a manifest cannot be read or names no pair, or one that is stamped already, a plan does not fit
            the input, or the shards lack the pairs.
    """
    if spec is None:
        return None
    if isinstance(spec, str | os.PathLike):
        manifest = read_manifest(spec)
        if not any(manifest.keys):
            raise UserMistake(f"poison manifest {shown(spec)} names no pair: nothing would be poisoned")
        manifest.check(image_size)  # before the pass over the data
        found = manifest.found_in(shards)
        _check_not_stamped(found, spec, {key for record in marks for key in record.keys})
        return found
    plans = plans_of(spec)
    Poison(plans).check(image_size)
    return Poison.from_plans(plans, shards, [record.keys for record in marks])


def _check_not_stamped(poison: Poison, manifest: str | os.PathLike[str], stamped: Set[str]) -> None:
    twice = sum(key in stamped for keys in poison.keys for key in keys)
    if twice:
        raise UserMistake(
            f"{twice:,} of the pairs that poison manifest {shown(manifest)} names are poisoned in these shards "
            f"already, as the {MANIFEST} beside them says, and would be stamped twice: to measure what "
            "the shards hold, name it as --data.attack"
        )


def attacks_by_name(plans: Iterable[PoisonPlan]) -> dict[str, PoisonPlan]:
    """The plans that an evaluation measures, by their name in ``results.csv``: ``BadNet``, ``BadNet-2``, ..."""
    attacks: dict[str, PoisonPlan] = {}
    numbers: Counter[str] = Counter()
    for plan in plans:
        if plan.measured:
            base = plan.attack_name
            numbers[base] += 1
            attacks[f"{base}-{numbers[base]}" if numbers[base] > 1 else base] = plan
    return attacks
