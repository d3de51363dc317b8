"""What a door is to the fuzzer, and how inputs are bent.

A family of doors stands in a file ``*_doors.py`` beside this one, with a list ``DOORS``; ``test_fuzz.py`` finds it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from untrigger.contracts import UserMistake


class Door(NamedTuple):
    """A reader of one kind of input."""

    name: str
    """What it reads, and where: ``shard``."""
    file: str
    """Name of the file that an input is written to; its folder is new."""
    seeds: Callable[[], Sequence[bytes]]
    """Inputs that are read well, and hostile ones by hand; each is read as it is too."""
    read: Callable[[Path], object]
    """Reads the file as the product does."""
    refusals: tuple[type[Exception], ...] = (UserMistake,)
    """What it may raise."""
    bend: Callable[[bytes, np.random.Generator], bytes] | None = None
    """Bends an input in a way of its own, half of the times; ``bent_json`` for example."""


NUMBERS = [0, -1, 1, 2**31, -(2**31), 2**63, 10**30, 1e308, 0.5, -0.0]
HOSTILE: list[Any] = [None, True, "", "x", "\ud800", "\x1b[2J", "é" * 300, [], {}, [[]], {"a": {}}, *NUMBERS]


def bent_bytes(data: bytes, others: Sequence[bytes], draws: np.random.Generator) -> bytes:
    """An input with one to four small changes."""
    for _ in range(int(draws.integers(1, 5))):
        data = _bent_once(data, others, draws)
    return data


def bent_json(data: bytes, draws: np.random.Generator) -> bytes:
    """JSON with a few of its values replaced, left out or nested deeper; other inputs stay as they are."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(int(draws.integers(1, 4))):
        content = _bent_value(copy.deepcopy(content), draws)
    return json.dumps(content).encode()


def _bent_value(value: Any, draws: np.random.Generator) -> Any:
    names = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not names or draws.random() < 0.15:
        return HOSTILE[int(draws.integers(len(HOSTILE)))]
    name = names[int(draws.integers(len(names)))]
    if draws.random() < 0.15:
        del value[name]
    else:
        value[name] = _bent_value(value[name], draws)
    return value


def _bent_once(data: bytes, others: Sequence[bytes], draws: np.random.Generator) -> bytes:
    start = int(draws.integers(len(data) + 1))
    end = min(len(data), start + int(draws.integers(1, 64)))
    match int(draws.integers(8)):
        case 0:  # a byte
            return data[:start] + bytes([int(draws.integers(256))]) + data[start + 1 :]
        case 1:  # an extreme of several bytes
            return data[:start] + [b"\0", b"\xff", b"\x7f", b"\x80"][int(draws.integers(4))] * 4 + data[start + 4 :]
        case 2:  # something left out
            return data[:start] + data[end:]
        case 3:  # something twice, or many times
            return data[:end] + data[start:end] * int(draws.choice([1, 2, 50])) + data[end:]
        case 4:  # something that does not belong there
            return data[:start] + draws.bytes(int(draws.integers(1, 16))) + data[start:]
        case 5:
            return data[:start]
        case 6:  # the end of another
            other = others[int(draws.integers(len(others)))]
            return data[:start] + other[int(draws.integers(len(other) + 1)) :]
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return data
    number = found[int(draws.integers(len(found)))]
    value = [b"-1", b"0", b"9" * 12, b"9" * 5000, b"1e999", b"77777777777"][int(draws.integers(6))]
    return data[: number.start()] + value + data[number.end() :]
