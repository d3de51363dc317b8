"""Plans from a manifest, and back.

A manifest is read as hostile input: it can name only classes that are already imported, and nothing that it names is
imported for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...contracts import UserMistake
from ...run_folder.manifest import PlanRecord, describing, read_plans, write_plans
from ..arguments import constructor_arguments
from ..triggers import Trigger
from .plain_types import fits
from .plan import PoisonPlan
from .poison import Poison


def write_manifest(poison: Poison, path: str | os.PathLike[str], marks: Sequence[PlanRecord] = ()) -> None:
    """Write a manifest; an existing one is replaced as a whole or not at all.

    Args:
        poison: The plans and their keys.
        path: The file; its folder is made if need be.
        marks: What was stamped before them, which stands in front.
    """
    write_plans([*marks, *map(_record, poison.plans, poison.keys)], path)


def read_manifest(path: str | os.PathLike[str]) -> Poison:
    """Read a manifest.

    Args:
        path: A file that ``write_manifest`` has written.

    Returns:
        The same plans with the same keys.

    Raises:
        UserMistake: If there is no such file, it is no manifest, was changed, or names a class that is not imported.
    """
    records = read_plans(path)
    with describing(path):
        return Poison([_plan(record) for record in records], [record.keys for record in records])


def _record(plan: PoisonPlan, keys: list[str]) -> PlanRecord:
    kinds = _qualified_name(type(plan)), _qualified_name(type(plan.trigger))
    return PlanRecord(kinds[0], plan.params, kinds[1], plan.trigger.params, keys)


def _plan(record: PlanRecord) -> PoisonPlan:
    trigger: Trigger = _made(_imported(Trigger, record.trigger_kind), record.trigger_params)
    plan: PoisonPlan = _made(_imported(PoisonPlan, record.kind), record.params, trigger=trigger)
    return plan


def _made(kind: type, params: Mapping[str, Any], **more: Any) -> Any:
    """An object of these arguments, each of the type that its class asks for: many are not used before training."""
    hints = constructor_arguments(kind)
    for name, value in params.items():
        if not fits(value, hints.get(name, Any)):
            raise UserMistake(f"{kind.__name__}'s {name[:80]!r} is {value!r:.80}, which is of another kind")
    return kind(**params, **more)


def _imported(base: type, name: str) -> type:
    """The class of this qualified name, looked up among the subclasses that exist; nothing is imported."""
    found = next((kind for kind in _subclasses(base) if _qualified_name(kind) == name), None)
    if found is None:
        raise UserMistake(
            f"it needs the {base.__name__} {name!r:.200}, which is not known here, and imports nothing by itself; "
            "if you trust the module that defines it, name it in the option imports (of fit, validate, test, predict "
            "and bench)"
        )
    return found


def _subclasses(base: type) -> Iterator[type]:
    yield base
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        yield from _subclasses(kind)


def _qualified_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
