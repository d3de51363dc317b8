"""LightningCLI, with what every run of this project has."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

# Imported so that a config and the command line can name their classes alone, without the module.
from . import datamodules, lightning_modules  # noqa: F401
from .callbacks import (
    AttackSuccessRate,
    CleanAccuracy,
    CompactProgressBar,
    ResultsWriter,
    SamplesPerSecond,
    SimilarityWriter,
    TriggerGallery,
)
from .contracts import UserMistake
from .mistakes import one_line, told_mistake

_DESCRIPTIONS = {
    "fit": "Train a module as a config says. Example: untrigger fit --config configs/poisoned_clip/cifar10.yaml "
    "--data.train_shards 'train/{00000..00019}.tar' --data.zero_shot cifar10",
    "validate": "Measure the protocol on a checkpoint. Example: untrigger validate --config RUN/config.yaml "
    "--ckpt_path RUN/last.ckpt",
    "test": "Measure the protocol on a checkpoint, logged as test/. Example: untrigger test --config RUN/config.yaml "
    "--ckpt_path RUN/last.ckpt --data.attack poison.json",
    "predict": "Write the similarity of every pair to similarities.csv. Example: untrigger predict "
    "--config RUN/config.yaml --ckpt_path RUN/last.ckpt",
}


class _OneLineErrors(LightningArgumentParser):
    """A parser whose complaints are one line, without its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user's."""
        if not self.exit_on_error:  # an inner parser trying one type of several
            super().error(message, ex)
        raise UserMistake((ex and told_mistake(ex)) or one_line(message))


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
        _quieten()
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},  # whether a run may go there is decided below, before it starts
            parser_kwargs={
                "prog": "untrigger",
                "description": "Poison CLIP. Then make it forget.",
                **{name: {"description": text} for name, text in _DESCRIPTIONS.items()},
            },
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
        """The trainer's methods, less what is not for choosing.

        A checkpoint is only ever loaded as tensors, and predictions are written, not kept.
        """
        settled = {"weights_only", "return_predictions"}
        return {name: skipped | settled for name, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has, each under its own key."""
        parser.add_lightning_class_args(CleanAccuracy, "clean_accuracy")
        parser.add_lightning_class_args(AttackSuccessRate, "attack_success_rate")
        parser.add_lightning_class_args(TriggerGallery, "trigger_gallery")
        parser.add_lightning_class_args(ResultsWriter, "results")
        parser.add_lightning_class_args(SamplesPerSecond, "samples_per_second")
        parser.add_lightning_class_args(SimilarityWriter, "similarities")
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
        taken = Path(folder, "config.yaml").exists() and rank_zero_only.rank == 0  # type: ignore[attr-defined]
        if fits and taken and not checkpoint and not requeued and not trainer["fast_dev_run"]:
            raise UserMistake(
                f"{folder} already holds a run: continue it with --ckpt_path {folder}/last.ckpt, "
                "or give another --trainer.default_root_dir"
            )
        if config["checkpoint"]["dirpath"] is None:
            config["checkpoint"]["dirpath"] = folder
        if trainer["logger"] is None or trainer["logger"] is True:
            trainer["logger"] = _loggers(folder) if fits else False

    def instantiate_classes(self) -> None:
        """Build everything; a class that refuses its arguments is the user's mistake."""
        torch.set_float32_matmul_precision("high")
        try:
            super().instantiate_classes()
        except Exception as error:
            if (told := told_mistake(error)) is not None:
                raise UserMistake(told) from error
            raise

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Leave out the callbacks that the trainer's own switches turn off; it would refuse them."""
        if config["enable_progress_bar"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        if config["enable_checkpointing"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        return super()._instantiate_trainer(config, callbacks)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        settled: dict[str, Any] = {"weights_only": True}
        if subcommand == "predict":
            settled["return_predictions"] = False
        return {**super()._prepare_subcommand_kwargs(subcommand), **settled}

    def after_fit(self) -> None:
        """Say where everything lies."""
        rank_zero_info(f"Run folder: {self.trainer.default_root_dir}")


def _quieten() -> None:
    """Keep off the console what is no news to a user of this project."""
    # Lightning asks torch for a class that it is about to rename.
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
    # The stream splits itself among the workers, which Lightning cannot know.
    warnings.filterwarnings("ignore", "Your `IterableDataset` has `__len__` defined")
    # Nothing is chosen as the best, so no best score is lost.
    warnings.filterwarnings("ignore", "The dirpath has changed")
    # The size that it estimates is of no use here.
    warnings.filterwarnings("ignore", "Precision .* is not supported by the model summary")
    # Advertisements.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )


def _loggers(folder: str) -> list[dict[str, Any]]:
    """CSV and TensorBoard, in the run folder itself."""
    # CSVLogger deletes the metrics.csv that it finds: a run that is continued writes its own beside it.
    sessions = len(list(Path(folder).glob("**/metrics.csv")))
    version = f"resumed-{sessions}" if sessions else ""
    return [
        {
            "class_path": f"lightning.pytorch.loggers.{kind}",
            "init_args": {"save_dir": folder, "name": "", "version": version},
        }
        for kind in ("CSVLogger", "TensorBoardLogger")
    ]


def _new_run_folder(command: str) -> str:
    # The processes of a job agree on it: those that Lightning starts inherit it, those of SLURM share a job.
    job = os.environ.get("SLURM_JOB_ID")
    stamp = job or os.environ.setdefault("UNTRIGGER_RUN", datetime.now().strftime("%Y%m%d-%H%M%S"))
    return str(Path("runs", f"{command}-{stamp}"))
