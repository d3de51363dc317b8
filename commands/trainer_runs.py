"""Runs that a command makes as a user would: LightningCLI on a config of the package, with overrides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..contracts import UserMistake
from ..files.packaged_configs import packaged_config
from ..files.reading import shown, user_path
from ..run_folder.config import CONFIG

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from ..command_line.lightning_cli import UntriggerCLI

Module = TypeVar("Module", bound="LightningModule")


def config_for(encoder: str, own: str | None, small: str, large: str) -> str:
    """The config of a run on a model.

    Args:
        encoder: The model's.
        own: What the user named; None for one of the package's.
        small: The package's for ``small:`` encoders, below ``configs/``.
        large: The one for others.

    Raises:
        UserMistake: If the user's is no path.
    """
    if own:
        return str(user_path(packaged_config(own), "config").absolute())
    return small if encoder.startswith("small:") else large


def run_trainer(
    subcommand: str, config: str | None, overrides: Sequence[str], kind: type[LightningModule] | None = None
) -> UntriggerCLI:
    """Run a method of the trainer.

    Where the package chose the config, and this processor only emulates the number format that it names, the run is in
    ``32-true``.

    Args:
        subcommand: ``fit`` or ``predict``.
        config: Its path below the package's ``configs/``, or of a file of the user's; None where the overrides say all.
        overrides: As on the command line.
        kind: What the model has to be; anything unless given.

    Returns:
        What has run, with its ``model`` and its ``trainer``.

    Raises:
        UserMistake: If the config is of another model. Then nothing has run.
    """
    import torch

    from ..command_line.lightning_cli import UntriggerCLI  # the command line imports the commands
    from ..command_line.number_formats import slow_precision

    class OfKind(UntriggerCLI):
        """Refuses other models before it runs."""

        def instantiate_classes(self) -> None:
            """Build everything, and see what it is."""
            super().instantiate_classes()
            if kind is not None and not isinstance(self.model, kind):
                is_of = f"{shown(str(config))} is a config of {type(self.model).__name__}"
                raise UserMistake(f"{is_of}; this command takes one of {kind.__name__}")

    # LightningCLI warns when it is given arguments beside those of the process.
    sys.argv = sys.argv[:1]
    if config is None:
        return OfKind([subcommand, *overrides])
    ours = not Path(config).is_absolute()
    if ours and not torch.cuda.is_available() and slow_precision("bf16-mixed"):
        overrides = ["--trainer.precision", "32-true", *overrides]
    with as_file(files("untrigger") / "configs" / config) as path:  # an absolute path stays what it is
        return OfKind([subcommand, "--config", str(path), *overrides])


def fit_or_resume(config: str, overrides: Sequence[str], folder: Path, kind: type[Module]) -> Module:
    """Fit in a folder, or resume a fit that was stopped there.

    Args:
        config: See ``run_trainer``.
        overrides: See ``run_trainer``.
        folder: The run folder.
        kind: See ``run_trainer``.

    Returns:
        What was fitted.

    Raises:
        KeyboardInterrupt: If it is stopped; it has left a checkpoint.
        UserMistake: See ``run_trainer``.
    """
    stopped = (folder / "last.ckpt").exists()
    if not stopped:
        (folder / CONFIG).unlink(missing_ok=True)  # of one that had not come to its first checkpoint
    again = ["--ckpt_path", "last"] if stopped else []
    ran = run_trainer("fit", config, [*overrides, "--trainer.default_root_dir", str(folder), *again], kind)
    if ran.trainer.interrupted:
        raise KeyboardInterrupt
    assert isinstance(ran.model, kind)
    return ran.model
