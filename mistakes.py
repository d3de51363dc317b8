"""From a library's complaint to the one line that the user is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from jsonargparse import ArgumentParser

from .contracts import UserMistake

_NOISE = re.compile(
    r"^(- )?(Does not validate|Subtypes:|Errors:|Given value|Subclass types expect|a class path \(str\)|a dict with)"
    r"|^(- )?Not a valid subclass of \w+\. Got value: \["  # a list of objects, tried as one
    r"|^(- )?Not of type ManifestPath"  # of the types that data.poison may have, the one that is tried first
)
_UNION = "Does not validate against any of the Union subtypes"
_CLASS = re.compile(r"^(?:- )?Problem with given class_path '(?:[\w.]*\.)?(\w+)'")
_KEY = re.compile(r'^(?:- )?Parser key "([^"]+)":?\s*(.*)$')
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_LONGEST = 500
_RANKS_THAT_CAME = re.compile(r"Timed out after .* waiting for clients\. (\d+)/(\d+) clients joined")
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid.*?\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")


class OneLineErrors(ArgumentParser):
    """A parser whose complaints are one line, without its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user's."""
        if not self.exit_on_error:  # an inner parser trying one type of several
            super().error(message, ex)
        raise UserMistake((ex and told_mistake(ex)) or shortened_complaint(message))


def told_mistake(error: BaseException) -> str | None:
    """What a user is told of an error; None if it is none of hers.

    Args:
        error: Its causes are looked through.

    Returns:
        The message of the outermost mistake of the user's, which says where; or that a data worker was killed, or a
        rank was not started.
    """
    told = next((str(cause) for cause in _causes(error) if isinstance(cause, UserMistake)), None)
    # Of an argument that may be several things, jsonargparse keeps no error but the texts of all.
    if told is None and str(error).startswith(_UNION):
        told = shortened_complaint(str(error))
    return told or next(
        (line for cause in _causes(error) if (line := _dead_worker(cause) or _missing_rank(cause))), None
    )


def shortened_complaint(message: str) -> str:
    """A message of jsonargparse's without its tree of tried types: the option, and what is wrong with it.

    Args:
        message: As jsonargparse words it, over many lines.

    Returns:
        One line such as ``data.poison.rate: Expected a <class 'float'>. Got value: much``.
    """
    keys: list[str] = []
    kind = None
    missing = _NO_CLASS.search(message)
    for line in message.splitlines():
        text = line.strip()
        if key := _KEY.match(text):
            keys.append(key[1])
            text = key[2]
        if named := _CLASS.match(text):
            kind = named[1]
        if not text or named or _NOISE.match(text):
            continue
        text = text.removeprefix("- ")
        if missing:
            text = f"there is no class {missing[1]}"
        elif kind and text.endswith("is not accepted"):
            text += f" by {kind}"
        where = f"{'.'.join(keys)}: " if keys else ""
        return (where + text)[:_LONGEST]
    return " ".join(message.split())[:_LONGEST]


def _dead_worker(error: BaseException) -> str | None:
    found = _DEAD_WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    how = f"was killed by a signal ({found[1]})" if found[1] else "ended unexpectedly"
    return (
        f"a data worker {how}, as the system does where memory is full: give fewer data.num_workers or more memory, "
        "and go on from the last checkpoint with --ckpt_path RUN/last.ckpt"
    )


def _missing_rank(error: BaseException) -> str | None:
    found = _RANKS_THAT_CAME.search(str(error))
    if found is None:
        return None
    return (
        f"{found[1]} of {found[2]} ranks came to the start of the run within end_together.timeout_seconds: start the "
        "others too, with srun or torchrun, or see why they ended"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
