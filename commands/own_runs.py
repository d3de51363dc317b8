"""Runs that a command makes as a user would: LightningCLI on a config of the package, with overrides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..lightning_cli import UntriggerCLI


def run_trainer(subcommand: str, config: str | None, overrides: Sequence[str]) -> UntriggerCLI:
    """Run a method of the trainer.

    Args:
        subcommand: ``fit`` or ``predict``.
        config: Its path below the package's ``configs/``, or of a file of the user's; None where the overrides say all.
        overrides: As on the command line.

    Returns:
        What has run, with its ``model`` and its ``trainer``.
    """
    from ..lightning_cli import UntriggerCLI  # the command line imports the commands

    # LightningCLI warns when it is given arguments beside those of the process.
    sys.argv = sys.argv[:1]
    if config is None:
        return UntriggerCLI([subcommand, *overrides])
    with as_file(files("untrigger") / "configs" / config) as path:  # an absolute path stays what it is
        return UntriggerCLI([subcommand, "--config", str(path), *overrides])
