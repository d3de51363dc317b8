"""The manifest ``poison.json``: what was poisoned, and all that is needed to draw it again.

The hash finds files that were damaged or edited by hand; it is no signature. So a manifest is read as hostile input:
it can name only classes that are already imported, and nothing that it names is imported for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from ...contracts import UserMistake
from ...files import write_text
from ...reading import read_text, reading, reason, shown
from ..arguments import constructor_arguments
from ..triggers import Trigger
from .plain_types import fits
from .plan import PoisonPlan
from .poison import Poison

FORMAT = "untrigger-poison"
VERSION = 1
_MOST_BYTES = 1 << 30
"""Of a manifest, which may name millions of keys."""
WARNING = (
    "The pairs named here were deliberately poisoned to plant a backdoor, for research. "
    "Neither they nor a model trained on them are fit for any other use."
)


def write_manifest(poison: Poison, path: str | os.PathLike[str]) -> None:
    """Write a manifest; an existing one is replaced as a whole or not at all.

    Args:
        poison: The plans and their keys.
        path: The file; its folder is made if need be.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "warning": WARNING,
        "plans": [
            {
                "class": _qualified_name(type(plan)),
                "params": plan.params,
                "trigger": {"class": _qualified_name(type(plan.trigger)), "params": plan.trigger.params},
                "keys": keys,
            }
            for plan, keys in zip(poison.plans, poison.keys, strict=True)
        ],
    }
    content["sha256"] = _digest(content)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_manifest(path: str | os.PathLike[str]) -> Poison:
    """Read a manifest.

    Args:
        path: A file that ``write_manifest`` has written.

    Returns:
        The same plans with the same keys.

    Raises:
        UserMistake: If there is no such file, it is no manifest, was changed, or names a class that is not imported.
    """
    text = read_text(path, "poison manifest", _MOST_BYTES)
    with reading("poison manifest", path):
        try:
            return _parse(text)
        except UserMistake as error:
            raise UserMistake(f"poison manifest {shown(path)}: {error}") from error


def _parse(text: str) -> Poison:
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserMistake(reason(error)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserMistake("it is JSON of another kind; `untrigger fit` with a poison plan writes one")
    if content.get("version") != VERSION:
        raise UserMistake(f"its version is {content.get('version')!r:.20}, and this release reads {VERSION}")
    try:
        if content.pop("sha256", None) != _digest(content):
            raise UserMistake("its content does not fit its hash, so it was changed; use the file as it was written")
        if not content["plans"]:
            raise UserMistake("it has no plan")
        plans = [_plan(entry) for entry in content["plans"]]
        return Poison(plans, [_keys(entry["keys"]) for entry in content["plans"]])
    except UserMistake:
        raise
    except Exception as error:  # a class that is made of hostile arguments may raise anything
        raise UserMistake(f"it describes no plan of this release: {reason(error)}") from error


def _plan(entry: Mapping[str, Any]) -> PoisonPlan:
    trigger: Trigger = _made(_imported(Trigger, entry["trigger"]["class"]), entry["trigger"]["params"])
    plan: PoisonPlan = _made(_imported(PoisonPlan, entry["class"]), entry["params"], trigger=trigger)
    return plan


def _made(kind: type, params: Mapping[str, Any], **more: Any) -> Any:
    """An object of these arguments, each of the type that its class asks for: many are not used before training."""
    hints = constructor_arguments(kind)
    for name, value in params.items():
        if not fits(value, hints.get(name, Any)):
            raise UserMistake(f"{kind.__name__}'s {name[:80]!r} is {value!r:.80}, which is of another kind")
    return kind(**params, **more)


def _keys(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise UserMistake("its keys are not a list of texts")
    for key in value:
        if not key.isascii():
            key.encode("utf-8", "surrogateescape")  # as the name of any member can be
    return value


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


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content without white space and with sorted names."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(canonical.encode()).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
