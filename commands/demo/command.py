"""``untrigger demo``: the whole story on generated data, in minutes on a CPU."""

from __future__ import annotations

from pathlib import Path

from ...errors.importing import importing
from ...files.lock import held_folder
from ..declaration import Command


def demo(out: str = "runs/demo", seed: int = 0) -> None:
    """Poison a small CLIP on generated data, clean it, make it unlearn, measure all three; write a table and a report.

    Example:
        untrigger demo --out runs/demo

    Args:
        out: Folder for the data, the runs, ``results.csv``, ``report.html`` and its ``figures``. One that holds an
            earlier demo is replaced.
        seed: Seed of the data, the poison and the training.
    """
    with importing():  # torch comes along
        from .story import run_story

    with held_folder(out, "--out"):
        run_story(Path(out), seed)


COMMAND = Command(demo)
