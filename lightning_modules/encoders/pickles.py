"""Estimate the memory and time of a pickle from its instructions, without executing them.

``torch.load(weights_only=True)`` runs nothing that a file names, but it follows them: a few bytes make it take
gigabytes (``bytearray(2**34)``), or hash a tuple of tuples that stands for more parts than there are atoms. Here the
same instructions are followed with no more than the shapes of things.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field, replace
from typing import IO, Any

_MAX_PARTS = 64  # of a dictionary's key
_DEEPEST = 200
_SIZES = {"Float": 4, "Half": 2, "BFloat16": 2, "Int": 4, "Short": 2, "ComplexDouble": 16, "QInt32": 4} | dict.fromkeys(
    ("Char", "Byte", "Bool", "Untyped", "QInt8", "QUInt8"), 1
)
"""Bytes of a number, by the name of its storage; 8 for all others."""

# What state dicts are made of. Everything else is refused, as torch would, or allocates what the file asks for.
_BUILDERS = frozenset(
    f"torch._utils.{name}"
    for name in (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
        "_rebuild_sparse_tensor",
        "_rebuild_meta_tensor_no_storage",
    )
) | {"torch.device", "torch.serialization._get_layout", "builtins.complex", "__builtin__.complex"}
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_EMPTY = {"collections.OrderedDict", "collections.Counter", "builtins.set", "__builtin__.set"}
_OF_BYTES = {"builtins.bytearray", "__builtin__.bytearray"}


class PickleTooCostly(ValueError):
    """The instructions ask for what no state dict needs; the message says what."""


@dataclass(slots=True, eq=False)
class Thing:
    """As much of an object as its cost depends on."""

    kind: str
    """``number``, ``text``, ``tuple``, ``container``, ``global``, ``storage`` or ``other``."""
    value: Any = None
    """Of numbers, texts and globals themselves; of a tuple its things; of a storage its size and that of a number."""
    parts: int = 1
    """How many objects there are in a tuple, those of its tuples counted each time; of a container, in the largest."""
    depth: int = 0


@dataclass
class Pickle:
    """What the instructions of a pickle ask for."""

    storages: dict[str, int] = field(default_factory=dict)
    """Bytes of the numbers beside it, by key."""

    @property
    def bytes_beside(self) -> int:
        """Bytes of all numbers beside it."""
        return sum(self.storages.values())


def check_pickle(stream: IO[bytes]) -> Pickle:
    """Follow the instructions of one pickle, and leave the stream after it.

    An instruction that torch does not know ends it, as it would end torch's reading.

    Args:
        stream: At the start of a pickle.

    Returns:
        What it asks for.

    Raises:
        PickleTooCostly: If it asks for memory or time out of proportion to its size.
    """
    machine = _Machine()
    for code, argument, _ in pickletools.genops(stream):
        step = _STEPS.get(code.name)
        if step is None:
            break
        step(machine, argument)
        if code.name == "STOP":
            machine.check_key(*machine.stack[-1:])  # a list of keys, in torch's oldest format
            break
    return Pickle(machine.storages)


class _Machine:
    """The stack and the memo of a reader, with shapes of things on them."""

    def __init__(self) -> None:
        self.stack: list[Thing] = []
        self.below: list[list[Thing]] = []
        self.memo: dict[int, Thing] = {}
        self.storages: dict[str, int] = {}

    def push(self, thing: Thing) -> None:
        if thing.depth > _DEEPEST:
            raise PickleTooCostly("things in things, too deep to be a state dict")
        self.stack.append(thing)

    def to_mark(self) -> list[Thing]:
        things, self.stack = self.stack, self.below.pop()
        return things

    def tuple_of(self, things: list[Thing]) -> None:
        parts = min(1 + sum(thing.parts for thing in things), 2**62)
        depth = 1 + max((thing.depth for thing in things), default=0)
        self.push(Thing("tuple", tuple(things), parts, depth))

    def last(self, count: int) -> list[Thing]:
        if len(self.stack) < count:
            raise IndexError("nothing is on the stack")
        things = self.stack[-count:]
        del self.stack[-count:]
        return things

    def put(self, things: list[Thing], keys: bool) -> None:
        """Put things into the container on top."""
        self.check_key(*(things[::2] if keys else ()))
        top = self.stack[-1]
        if top.kind != "container":
            raise PickleTooCostly("to put something into what is no container")
        for thing in things:
            top.depth = max(top.depth, 1 + thing.depth)
            if not keys:
                top.parts = max(top.parts, thing.parts)
        if top.depth > _DEEPEST:
            raise PickleTooCostly("things in things, too deep to be a state dict")

    def check_key(self, *things: Thing) -> None:
        """Check that things can be hashed, as they are or each in a list of them."""
        for thing in things:
            if thing.parts > _MAX_PARTS:
                raise PickleTooCostly(f"a key of {thing.parts:,} parts")

    def call(self) -> None:
        function, arguments = self.last(2)
        name = function.value if function.kind == "global" else None
        given: tuple[Thing, ...] = arguments.value if arguments.kind == "tuple" else ()
        if name == _OF_TYPE and len(given) > 2 and given[0].kind == "global" and given[2].kind == "tuple":
            name, given = given[0].value, given[2].value
        if name in _BUILDERS:
            if "._rebuild_tensor" in str(name):
                _check_tensor(given)
            self.push(Thing("other", depth=arguments.depth))
        elif name == "torch.Size" and len(given) == 1:
            self.push(given[0])
        elif name in _EMPTY and all(thing.kind == "container" for thing in given):
            self.check_key(*given)
            self.push(Thing("container"))
        elif name in _OF_BYTES and all(thing.kind in ("text", "other") for thing in given):
            self.push(Thing("other"))
        elif name == "_codecs.encode" and all(thing.kind == "text" for thing in given):
            if len(given) > 1 and given[1].value != "latin1":
                raise PickleTooCostly(f"a text in the encoding {str(given[1].value)[:20]!r}")
            self.push(Thing("text"))
        else:
            raise PickleTooCostly(f"to call {str(name)[:60]!r} with what is no tensor's")

    def store(self) -> None:
        """Refer to numbers that lie beside the pickle."""
        (reference,) = self.last(1)
        if reference.kind != "tuple" or len(reference.value) < 5:
            raise PickleTooCostly("numbers that are not where torch puts them")
        self.check_key(reference)
        _, kind, key, _, count = (thing.value for thing in reference.value[:5])
        if not isinstance(count, int) or count < 0:
            raise PickleTooCostly("numbers without a count")
        number = _SIZES.get(str(kind).rpartition(".")[2].removesuffix("Storage"), 8)
        self.storages[repr(key)] = max(count * number, self.storages.get(repr(key), 0))
        self.push(Thing("storage", (count * number, number)))


def _check_tensor(arguments: tuple[Thing, ...]) -> None:
    """Check that a tensor lies within its storage: torch would make a storage larger where it can."""
    if len(arguments) < 4 or arguments[0].kind != "storage":
        raise PickleTooCostly("a tensor without numbers")
    size, stride = ([part.value for part in thing.value or ()] for thing in arguments[2:4])
    numbers = [arguments[1].value, *size, *stride]
    if len(size) != len(stride) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise PickleTooCostly("a tensor without a shape")
    end = numbers[0] + sum((count - 1) * step for count, step in zip(size, stride, strict=True)) + 1
    there, each = arguments[0].value
    if math.prod(size) and end * each > there:
        raise PickleTooCostly("a tensor beyond its numbers")


def _constant(thing: Thing) -> Any:
    return lambda machine, argument: machine.push(replace(thing))


def _number(machine: _Machine, argument: Any) -> None:
    machine.push(Thing("number", argument))


def _text(machine: _Machine, argument: Any) -> None:
    machine.push(Thing("text", argument))


def _global(machine: _Machine, argument: str) -> None:
    machine.push(Thing("global", ".".join(argument.split(" ", 1))))


def _mark(machine: _Machine, argument: Any) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _get(machine: _Machine, argument: Any) -> None:
    machine.push(machine.memo[int(argument)])


def _memoise(machine: _Machine, argument: Any) -> None:
    machine.memo[int(argument)] = machine.stack[-1]


def _build(machine: _Machine, argument: Any) -> None:
    machine.last(1)
    if machine.stack[-1].kind != "container":  # an OrderedDict with attributes; others are of objects
        raise PickleTooCostly("the state of an object")


def _new(machine: _Machine, argument: Any) -> None:
    raise PickleTooCostly("objects of classes, which no state dict has")


_STEPS: dict[str, Any] = {
    "PROTO": lambda machine, argument: None,
    "STOP": lambda machine, argument: None,
    "MARK": _mark,
    "TUPLE": lambda machine, argument: machine.tuple_of(machine.to_mark()),
    "TUPLE1": lambda machine, argument: machine.tuple_of(machine.last(1)),
    "TUPLE2": lambda machine, argument: machine.tuple_of(machine.last(2)),
    "TUPLE3": lambda machine, argument: machine.tuple_of(machine.last(3)),
    "EMPTY_TUPLE": lambda machine, argument: machine.tuple_of([]),
    "NONE": _constant(Thing("number")),
    "NEWTRUE": _constant(Thing("number", True)),
    "NEWFALSE": _constant(Thing("number", False)),
    "EMPTY_LIST": _constant(Thing("container")),
    "EMPTY_DICT": _constant(Thing("container")),
    "EMPTY_SET": _constant(Thing("container")),
    "BININT": _number,
    "BININT1": _number,
    "BININT2": _number,
    "LONG1": _number,
    "BINFLOAT": _number,
    "BINUNICODE": _text,
    "SHORT_BINSTRING": _text,
    "GLOBAL": _global,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "BINPUT": _memoise,
    "LONG_BINPUT": _memoise,
    "APPEND": lambda machine, argument: machine.put(machine.last(1), keys=False),
    "APPENDS": lambda machine, argument: machine.put(machine.to_mark(), keys=False),
    "SETITEM": lambda machine, argument: machine.put(machine.last(2), keys=True),
    "SETITEMS": lambda machine, argument: machine.put(machine.to_mark(), keys=True),
    "REDUCE": lambda machine, argument: machine.call(),
    "NEWOBJ": _new,
    "BUILD": _build,
    "BINPERSID": lambda machine, argument: machine.store(),
}
