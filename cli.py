"""The ``untrigger`` command: LightningCLI, and the commands beside it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentParser, auto_cli
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

# Named here so that a config and the command line can call them by class name alone.
from . import __version__, callbacks, datamodules, lightning_modules  # noqa: F401
from .callbacks import (
    AttackSuccessRate,
    CleanAccuracy,
    CompactProgressBar,
    ResultsWriter,
    SamplesPerSecond,
    TriggerGallery,
)
from .contracts import UserMistake

USAGE = """\
usage: untrigger COMMAND [options]

Poison CLIP. Then make it forget.

  fit, validate, test, predict   LightningCLI on a config, for example
                                 untrigger fit --config configs/poisoned_clip/cifar10.yaml \\
                                   --data.train_shards 'train/{00000..00019}.tar' --data.zero_shot cifar10
  demo                           poison a small CLIP on generated data and measure it
  shards                         turn a CSV, an image folder or a torchvision data set into shards
  poison                         bake a poison plan into new shards
  report                         make report.html from run folders

untrigger COMMAND --help tells more of each, with an example.
"""


class _OneLineErrors(LightningArgumentParser):
    """A parser whose complaints are one line, without its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user's."""
        if not self.exit_on_error:  # an inner parser trying one type of several
            super().error(message, ex)
        raise UserMistake(_one_line(message, ex))


def _one_line(message: str, error: BaseException | None = None) -> str:
    """The innermost mistake where there is one, else the message without line breaks."""
    while error is not None:
        if isinstance(error, UserMistake):
            return str(error)
        error = error.__cause__ or error.__context__
    line = " ".join(message.split())
    return line if len(line) <= 400 else f"{line[:400]} ..."


class _SaveConfig(SaveConfigCallback):
    """Saves the full config beside the checkpoints of a run. An evaluation leaves it alone."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save where training starts."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class UntriggerCLI(LightningCLI):
    """LightningCLI with the project's metrics, checkpoints and loggers in every run.

    The run folder is ``trainer.default_root_dir``; it holds the config, the checkpoint ``last.ckpt``, ``metrics.csv``,
    TensorBoard's events, ``results.csv``, and ``poison.json`` where something is poisoned. Unless given, it is a new
    folder under ``runs/``.
    """

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},  # whether a run may go there is decided below, before it starts
            parser_kwargs={"prog": "untrigger", "description": "Poison CLIP. Then make it forget."},
            parser_class=_OneLineErrors,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            args=args,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's methods; a checkpoint is only ever loaded as tensors, so there is nothing to choose."""
        return {name: skipped | {"weights_only"} for name, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has, each under its own key."""
        parser.add_lightning_class_args(CleanAccuracy, "clean_accuracy")
        parser.add_lightning_class_args(AttackSuccessRate, "attack_success_rate")
        parser.add_lightning_class_args(TriggerGallery, "trigger_gallery")
        parser.add_lightning_class_args(ResultsWriter, "results")
        parser.add_lightning_class_args(SamplesPerSecond, "samples_per_second")
        parser.add_lightning_class_args(CompactProgressBar, "progress_bar")
        parser.set_defaults({"progress_bar.leave": True})
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        # The last one: nothing is chosen by what an attack did.
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_top_k": 0})

    def _parse_ckpt_path(self) -> None:
        """Leave the config as the user wrote it.

        LightningCLI would replace the model's arguments by those in the checkpoint, and import the class that the file
        names.
        """

    def before_instantiate_classes(self) -> None:
        """Settle the run folder and the loggers, before anything is built."""
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        trainer, fits = config["trainer"], self.subcommand == "fit"
        checkpoint = config.get("ckpt_path")
        if trainer["default_root_dir"] is None:
            beside = checkpoint and not fits and Path(checkpoint).is_file()
            folder = str(Path(checkpoint).parent) if beside else _new_run_folder(self.subcommand or "run")
            trainer["default_root_dir"] = folder
        folder = trainer["default_root_dir"]
        if checkpoint and checkpoint not in ("best", "last", "hpc", "registry") and not Path(checkpoint).exists():
            raise UserMistake(f"checkpoint {checkpoint} does not exist")
        requeued = any(Path(folder).glob("hpc_ckpt_*.ckpt"))
        taken = Path(folder, "config.yaml").exists() and rank_zero_only.rank == 0
        if fits and taken and not checkpoint and not requeued and not trainer["fast_dev_run"]:
            raise UserMistake(
                f"{folder} already holds a run: continue it with --ckpt_path {folder}/last.ckpt, "
                "or give another --trainer.default_root_dir"
            )
        if config["checkpoint"]["dirpath"] is None:
            config["checkpoint"]["dirpath"] = folder
        if trainer["logger"] is None or trainer["logger"] is True:
            trainer["logger"] = (
                [_logger(name, folder) for name in ("CSVLogger", "TensorBoardLogger")] if fits else False
            )

    def after_instantiate_classes(self) -> None:
        """Check the module against the data before a worker starts."""
        torch.set_float32_matmul_precision("high")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def after_fit(self) -> None:
        """Say where everything lies."""
        rank_zero_info(f"Run folder: {self.trainer.default_root_dir}")


def _logger(name: str, folder: str) -> dict[str, Any]:
    return {
        "class_path": f"lightning.pytorch.loggers.{name}",
        "init_args": {"save_dir": folder, "name": "", "version": ""},
    }


def _new_run_folder(command: str) -> str:
    # The processes of a job agree on it: those that Lightning starts inherit it, those of SLURM share a job.
    job = os.environ.get("SLURM_JOB_ID")
    stamp = job or os.environ.setdefault("UNTRIGGER_RUN", datetime.now().strftime("%Y%m%d-%H%M%S"))
    return str(Path("runs", f"{command}-{stamp}"))


def _commands() -> dict[str, Callable[..., Any] | dict[str, Callable[..., Any]]]:
    """The commands beside LightningCLI."""
    from .commands import demo, poison, report, shards

    return {"demo": demo.demo, "poison": poison.poison, "report": report.report, "shards": shards.COMMANDS}


class _OneLineCommand(ArgumentParser):
    """As ``_OneLineErrors``, for the commands beside LightningCLI."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user's."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise UserMistake(_one_line(message, ex))


def run(args: list[str]) -> None:
    """Run a command.

    Raises:
        UserMistake: If the user made one.
    """
    name = args[0] if args else "--help"
    if name in ("-h", "--help"):
        print(USAGE, end="")
    elif name == "--version":
        print(f"untrigger {__version__}")
    elif name in UntriggerCLI.subcommands():
        # LightningCLI warns when it is given arguments beside those of the process, which it reads by itself.
        UntriggerCLI(None if args == sys.argv[1:] else args)
    elif name in (commands := _commands()):
        # auto_cli takes its options from the signature and its help from the docstring.
        auto_cli(commands[name], args=args[1:], parser_class=_OneLineCommand, prog=f"untrigger {name}")
    else:
        known = ", ".join([*UntriggerCLI.subcommands(), *_commands()])
        raise UserMistake(f"unknown command {name!r}; there are {known}")


def main() -> None:
    """Entry point: exit code 0 on success, 2 with one line on a mistake of the user's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    try:
        run(sys.argv[1:])
    except UserMistake as mistake:
        print(f"untrigger: error: {_one_line(str(mistake))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
