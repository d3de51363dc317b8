"""The commands beside LightningCLI: one folder for each, whose ``command.py`` declares it as ``COMMAND``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .declaration import Command, CommandGroup

COMMANDS = {
    "demo": "poison a small CLIP on generated data, clean it, measure both",
    "shards": "turn a CSV, an image folder or a torchvision data set into shards",
    "poison": "bake a poison plan into new shards",
    "check": "say whether a model of unknown origin, and its data, have a backdoor",
    "detect": "rank training pairs by every detector of poison, and say how well each ranks",
    "screen": "say which pictures that a model is shown look triggered",
    "clean": "let a suspicious model unlearn its backdoor, and hand it back",
    "export": "hand a model back in the format of transformers or open_clip, with a model card",
    "bench": "run a grid of attacks and defences; its table, figures and report",
    "report": "make report.html from run folders",
}
"""The commands, each with a line of help."""


def command(name: str) -> Command | CommandGroup:
    """Import a command: no other one is, nor what it needs before it runs.

    Args:
        name: One of ``COMMANDS``.
    """
    declared: Command | CommandGroup = import_module(f".{name}.command", __name__).COMMAND
    return declared
