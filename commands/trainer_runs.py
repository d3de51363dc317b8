"""Runs that a command makes as a user would: LightningCLI on a config of the package, with overrides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from ..run_folder.config import CONFIG

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


def fit_or_resume(config: str, overrides: Sequence[str], folder: Path) -> UntriggerCLI:
    """Fit in a folder, or resume a fit that was stopped there.

    Args:
        config: See ``run_trainer``.
        overrides: See ``run_trainer``.
        folder: The run folder.

    Raises:
        KeyboardInterrupt: If it is stopped; it has left a checkpoint.
    """
    stopped = (folder / "last.ckpt").exists()
    if not stopped:
        (folder / CONFIG).unlink(missing_ok=True)  # of one that had not come to its first checkpoint
    again = ["--ckpt_path", "last"] if stopped else []
    ran = run_trainer("fit", config, [*overrides, "--trainer.default_root_dir", str(folder), *again])
    if ran.trainer.interrupted:
        raise KeyboardInterrupt
    return ran
