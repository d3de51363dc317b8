"""Compare the poison of a resumed run with that of its checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from .manifest import read_manifest
from .plan import PoisonPlan
from .poison import Poison
from .spec import PoisonSpec, plans_of

_MAX_LENGTH = 60


def poison_state(poison: Poison | None, spec: PoisonSpec) -> dict[str, Any]:
    """What distinguishes this poison from others, as plain data.

    Args:
        poison: The plans with the pairs that they poison; None for nothing.
        spec: What the user gave.

    Returns:
        The arguments of each plan, and a digest of the keys, which of a manifest are two: it may name pairs that the
        shards lack.
    """
    chosen = [] if poison is None else poison.keys
    given = read_manifest(spec).keys if isinstance(spec, str | os.PathLike) else chosen
    plans = [] if poison is None else poison.plans
    return {"plans": [_arguments(plan) for plan in plans], "keys": [_digest(chosen), _digest(given)]}


def changed_poison(before: Mapping[str, Any], spec: PoisonSpec) -> str:
    """In words what differs from the poison of a checkpoint; empty where nothing does.

    The pairs that a plan chooses follow from its arguments and the pairs; a manifest that says the same is the same.

    Args:
        before: As ``poison_state`` gave it, when the checkpoint was written.
        spec: What the user gives now.

    Raises:
        UserMistake: If a manifest cannot be read.
    """
    manifest = read_manifest(spec) if isinstance(spec, str | os.PathLike) else None
    old, new = list(before["plans"]), [_arguments(plan) for plan in (manifest.plans if manifest else plans_of(spec))]
    if len(old) != len(new):
        return f"{_counted(len(new))} instead of {_counted(len(old))}"
    changed = [
        f"{name} {_shown(plan[name])} instead of {_shown(was[name])}"
        for was, plan in zip(old, new, strict=True)
        for name in was
        if name in plan and was[name] != plan[name]
    ]
    if not changed and manifest is not None and _digest(manifest.keys) not in before["keys"]:
        changed.append(f"another choice of pairs in {os.fspath(spec)}")  # type: ignore[arg-type]  # it is a path
    return ", ".join(changed)


def _arguments(plan: PoisonPlan) -> dict[str, Any]:
    """The classes and arguments of a plan and its trigger, as JSON would hold them."""
    trigger = {f"trigger.{name}": value for name, value in plan.trigger.params.items()}
    kinds = {"plan": type(plan).__qualname__, "trigger": type(plan.trigger).__qualname__}
    arguments: dict[str, Any] = json.loads(json.dumps(kinds | plan.params | trigger, default=str))
    return arguments


def _digest(keys: list[list[str]]) -> str:
    return sha256(json.dumps([sorted(chosen) for chosen in keys]).encode()).hexdigest()


def _counted(plans: int) -> str:
    return {0: "no plan", 1: "a plan"}.get(plans, f"{plans} plans")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…"
