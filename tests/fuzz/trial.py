"""One try of a reader: it reads, or says in one line why not, within its time and its memory."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from fuzz.mutations import Mutation

from untrigger.contracts import UserMistake

MOST_SECONDS, MOST_BYTES = 10, 1 << 30
"""Of this process: on a machine that others use too, the clock on the wall runs on without it."""
_MOST_SECONDS_WAITING = 120
_SEED = f"-{seed}" if (seed := os.environ.get("FUZZ_SEED")) else ""


class TooLong(BaseException):
    """Nothing that is read takes that long; no reader may take it for an error of the file."""


class Door(NamedTuple):
    """A point where something is read."""

    seed: Path
    """A good file; others may lie beside it. Its mutations are written over it."""
    read: Callable[[], object]
    """Reads it there."""
    mutations: tuple[Mutation, ...]


def runs(at_least: int) -> int:
    """How many tries a door gets: more with ``make test-fuzz``."""
    return max(at_least, int(os.environ.get("FUZZ_RUNS", "0")))


def try_door(door: Door, tries: int, name: str) -> tuple[int, int]:
    """Read mutations of a good file.

    Args:
        door: Where.
        tries: How many.
        name: What the mutations are drawn by.

    Returns:
        How many were read, and how many refused.

    Raises:
        AssertionError: If one is neither, with the mutation's number: it is the same in every run of one ``FUZZ_SEED``.
    """
    good = door.seed.read_bytes()
    door.read()  # the seed itself is good
    counts = [0, 0]
    for number in range(tries):
        rng = random.Random(f"{name}-{number}{_SEED}")
        data = good
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            try:
                data = rng.choice(door.mutations)(data, rng)
            except Exception:  # what is broken already may be no JSON and no archive any more
                break
        door.seed.write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reported = _tried(door.read, f"{name}-{number}")
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        assert grown < MOST_BYTES, f"{name}-{number} took {grown >> 20} MiB"
        assert reported is None or ("\n" not in reported and reported.isprintable()), f"{name}-{number}: {reported!r}"
        counts[reported is not None] += 1
    door.seed.write_bytes(good)
    return counts[0], counts[1]


def _tried(read: Callable[[], object], name: str) -> str | None:
    def too_long(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"{name} is not read within {MOST_SECONDS} s")

    before = {clock: signal.signal(clock, too_long) for clock in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.alarm(_MOST_SECONDS_WAITING)
    try:
        read()
    except UserMistake as mistake:
        return str(mistake)
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for clock, handler in before.items():
            signal.signal(clock, handler)
    return None
