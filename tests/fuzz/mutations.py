"""Files that are a little, or wholly, wrong: made of good ones, the same ones in every run."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

_TOKENS = (
    *(b"0", b"-1", b"1e30", b"-1e400", b"NaN", b"1e-320", b"9" * 30, b"9" * 500, b"2147483648", b"9223372036854775808"),
    *(b"", b"null", b"true", b'"x"', b"[]", b"{}", b"[[[[]]]]", b"\x00", b"\xff\xfe", b"\x1b[2J", b"\xed\xa0\x80"),
    *(
        b"<script>",
        b"=1+1",
        b"../../../etc/passwd",
        b'"',
        b"'",
        b",,,,",
        b"\n",
        b"\r\n",
        b"&a",
        b"*a",
        b"!!python/name:os",
    ),
)
_VALUES: tuple[Any, ...] = (
    *(0, -1, 1e30, -(2**63), 2**31, 2**64, 10**400, 1e308, float("nan"), float("inf"), True, None, "", "x", "x" * 5000),
    *([], {}, [[[]]], [None] * 50, {"": {}}, "\x1b[31m", "\udc80", "auto", 0.5, {"a": 1}),
)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((0, 255, 128, rng.randrange(256)))
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """It ends too early."""
    return data[: rng.randrange(len(data) + 1)]


def repeated(data: bytes, rng: random.Random) -> bytes:
    """A part of it is there several times, or not at all."""
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:start] + data[start:end] * rng.choice((0, 2, 3)) + data[end:]


def spliced(data: bytes, rng: random.Random) -> bytes:
    """Something stands in it that nobody expects."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice(_TOKENS) + data[start + rng.choice((0, 0, 1, 4)) :]


def renumbered(data: bytes, rng: random.Random) -> bytes:
    """One of its numbers or words is another."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|\w+", data))
    if not found:
        return spliced(data, rng)
    chosen = rng.choice(found)
    return data[: chosen.start()] + rng.choice(_TOKENS) + data[chosen.end() :]


def restructured(data: bytes, rng: random.Random) -> bytes:
    """One of the values of a JSON file is another, is missing or is nested."""
    content = json.loads(data)
    slots: list[tuple[Any, Any]] = []
    todo = [content]
    while todo:
        part = todo.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        slots += [(part, key) for key in keys]
        todo += [part[key] for key in keys]
    if not slots:
        return flipped(data, rng)
    part, key = rng.choice(slots)
    kind = rng.randrange(4)
    if kind == 0:
        del part[key]
    elif kind == 1:
        part[key] = [part[key]] * rng.choice((1, 2, 300))
    else:
        part[key] = rng.choice(_VALUES)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def repacked(data: bytes, rng: random.Random) -> bytes:
    """A member of a zip archive is broken, in an archive that is whole."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    index = rng.randrange(len(members))
    item, content = members[index]
    members[index] = item, rng.choice((flipped, flipped, cut, spliced, repeated))(content, rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", item.compress_type) as archive:
        for item, content in members:
            archive.writestr(item.filename, content)
    return stream.getvalue()


BYTES: tuple[Mutation, ...] = (flipped, cut, repeated, spliced)
TEXT: tuple[Mutation, ...] = (*BYTES, renumbered, renumbered)
JSON: tuple[Mutation, ...] = (*TEXT, restructured, restructured, restructured, restructured)
ZIP: tuple[Mutation, ...] = (*BYTES, repacked, repacked, repacked)
