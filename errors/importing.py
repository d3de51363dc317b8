"""Ctrl-C during the import of large libraries ends the process with one line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .interrupt import ended_by_ctrl_c


@contextmanager
def importing() -> Iterator[None]:
    """Import what is inside: Ctrl-C ends the process with one line, and no garbage is looked for.

    Modules are not garbage, but every import of torch, Lightning and their like sets off hundreds of searches through
    all that was imported before: a fifth of the time. What was imported is left out of later searches too.
    """
    before, collected = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        with ended_by_ctrl_c():
            yield
    finally:
        if len(sys.modules) > before:  # or what is garbage by now, in a process that runs for long, would stay
            gc.freeze()
        if collected:
            gc.enable()
