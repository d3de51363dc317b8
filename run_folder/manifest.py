"""``poison.json``, the manifest of a poisoned run: what was poisoned, and all that is needed to draw it again.

The hash finds files that were damaged or edited by hand; it is no signature. Here a class is a name, and nothing is
imported for it: `datamodules.poisoning` makes plans of what is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, Self

from ..contracts import UserMistake
from ..files.reading import read_text, reading, reason, shown
from ..files.writing import write_text

MANIFEST = "poison.json"
"""The name of the file: in the folder of a run that plants poison, and beside shards that are poisoned."""
_FORMAT, _VERSION = "untrigger-poison", 1
_WHAT = "poison manifest"
_MAX_BYTES = 1 << 30
"""Of a manifest, which may name millions of keys."""
_WARNING = (
    "The pairs named here were deliberately poisoned to plant a backdoor, for research. "
    "Neither they nor a model trained on them are fit for any other use."
)


@dataclass(frozen=True)
class PlanRecord:
    """A poison plan as plain data.

    Attributes:
        kind: The qualified name of the plan's class.
        params: Its arguments, without the trigger.
        trigger_kind: The qualified name of the trigger's class.
        trigger_params: The trigger's arguments.
        keys: The keys of the pairs that are poisoned.
    """

    kind: str
    params: Mapping[str, Any]
    trigger_kind: str
    trigger_params: Mapping[str, Any]
    keys: list[str]

    def entry(self) -> dict[str, Any]:
        """As the file has it."""
        trigger = {"class": self.trigger_kind, "params": self.trigger_params}
        return {"class": self.kind, "params": self.params, "trigger": trigger, "keys": self.keys}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """What the file has. Only the keys are checked: whoever makes a plan of it checks the names and arguments."""
        trigger = entry["trigger"]
        return cls(entry["class"], entry["params"], trigger["class"], trigger["params"], _keys(entry["keys"]))


def write_plans(plans: Iterable[PlanRecord], path: str | os.PathLike[str]) -> None:
    """Write a manifest; an existing one is replaced as a whole or not at all.

    Args:
        plans: The plans, in their order.
        path: The file; its folder is made if need be.
    """
    content: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "warning": _WARNING,
        "plans": [plan.entry() for plan in plans],
    }
    content["sha256"] = content_digest(content)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_plans(path: str | os.PathLike[str]) -> list[PlanRecord]:
    """Read a manifest.

    Args:
        path: A file that ``write_plans`` has written.

    Returns:
        Its plans, at least one.

    Raises:
        UserMistake: If there is no such file, it is no manifest, or it was changed.
    """
    text = read_text(path, _WHAT, _MAX_BYTES)
    with reading(_WHAT, path), describing(path):
        try:
            content = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise UserMistake(reason(error)) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise UserMistake("it is JSON of another kind; `untrigger fit` with a poison plan writes one")
        if content.get("version") != _VERSION:
            raise UserMistake(f"its version is {content.get('version')!r:.20}, and this release reads {_VERSION}")
        if content.pop("sha256", None) != content_digest(content):
            raise UserMistake("its content does not fit its hash, so it was changed; use the file as it was written")
        if not content["plans"]:
            raise UserMistake("it has no plan")
        return [PlanRecord.of(entry) for entry in content["plans"]]


@contextmanager
def describing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the manifest in whatever is wrong with it.

    Args:
        path: The manifest that the block reads, or makes plans of.

    Raises:
        UserMistake: If the block raises one, or any other exception, which is its cause.
    """
    try:
        yield
    except UserMistake as error:
        raise UserMistake(f"{_WHAT} {shown(path)}: {error}") from error
    except Exception as error:  # a class that is made of hostile arguments may raise anything
        mistake = f"it describes no plan of this release: {reason(error)}"
        raise UserMistake(f"{_WHAT} {shown(path)}: {mistake}") from error


def content_digest(content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal digits, of the content without white space and with sorted names."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(canonical.encode()).hexdigest()


def named_keys(path: str | os.PathLike[str], what: str) -> set[str]:
    """Read the keys alone, of a file that need not be whole or of this release.

    Args:
        path: A ``poison.json``.
        what: What it is, for messages.

    Raises:
        UserMistake: If there is no such file, or it names no keys.
    """
    text = read_text(path, what)
    with reading(what, path):
        return {_text(key) for plan in json.loads(text)["plans"] for key in plan["keys"]}


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key is {key!r:.40}, which is no text")
    return key


def _keys(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise UserMistake("its keys are not a list of texts")
    for key in value:
        if not key.isascii():
            key.encode("utf-8", "surrogateescape")  # as the name of any member can be
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
