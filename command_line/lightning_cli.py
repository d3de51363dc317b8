"""LightningCLI, with what every run of this project has."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import ExitStack
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

# Imported so that a config and the command line can name their classes alone, without the module.
from .. import datamodules, lightning_modules  # noqa: F401
from ..callbacks import (
    AttackSuccessRate,
    BackdoorDetection,
    CleanAccuracy,
    CompactProgressBar,
    EndTogether,
    EvaluationSample,
    FiniteLoss,
    LastCheckpoint,
    RandomStates,
    ResultsWriter,
    ResumedSchedule,
    ResumedSettings,
    Retrieval,
    SamplesPerSecond,
    SimilarityWriter,
    SingleImageSuccess,
    SuspectsWriter,
    TriggerGallery,
)
from ..contracts import UserMistake
from ..errors.libraries import refused_option
from ..errors.lines import OneLineErrors, user_message
from ..files.lock import claimed_folder, held_folder
from ..files.reading import reading, reason
from ..run_folder.config import CONFIG
from ..run_folder.progress import samples_seen
from ..trainer.checkpoints import WholeCheckpointIO, last_checkpoint, whole_checkpoint
from .checkpoint_checks import CHECKPOINT_NAMES, check_checkpoint, check_model, check_same_module, is_restoring
from .folder_checks import check_folder
from .number_formats import slow_precision
from .own_modules import Imports, asked_imports, import_modules
from .slurm_tasks import settle_tasks
from .trainer_options import check_averaging, check_steps, settle_trainer

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


# Such as the interval of Lightning's Timer, which no config could be saved with.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_str(str(value.value)))


class _Parser(OneLineErrors, LightningArgumentParser):
    """LightningCLI's parser, with complaints of one line."""


class _SaveConfig(SaveConfigCallback):
    """Saves the full config beside the checkpoints of a run. An evaluation leaves it alone."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save where training starts."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class UntriggerCLI(LightningCLI):
    """LightningCLI with the project's metrics, checkpoints and loggers in every run.

    The run folder is ``trainer.default_root_dir``; it holds the config, the checkpoint ``last.ckpt``, ``metrics.csv``,
    TensorBoard's events, ``results.csv``, ``evaluation.npz``, and ``poison.json`` where something is poisoned. Unless
    given, it is a new folder under ``runs/``.
    """

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        _quieten()
        try:
            with ExitStack() as self._alone:
                self._run(args, run)
        except Exception as error:
            message = None if isinstance(error, UserMistake) else user_message(error) or refused_option(error)
            if message is None:
                raise
            raise UserMistake(message) from error

    def _run(self, args: list[str] | None, run: bool) -> None:
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
            parser_class=_Parser,
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
        """Add the modules to import and the callbacks that every run has, each under its own key."""
        parser.add_argument(
            "--imports",
            type=Imports,
            default=None,
            help="Modules of your own that are imported first, such as my_study or '[my_study, other]': a manifest "
            "names their classes, and imports none.",
        )
        parser.add_lightning_class_args(CleanAccuracy, "clean_accuracy")
        parser.add_lightning_class_args(AttackSuccessRate, "attack_success_rate")
        parser.add_lightning_class_args(SingleImageSuccess, "single_image_success")
        parser.add_lightning_class_args(Retrieval, "retrieval")
        parser.add_lightning_class_args(TriggerGallery, "trigger_gallery")
        parser.add_lightning_class_args(EvaluationSample, "evaluation_sample")
        parser.add_lightning_class_args(ResultsWriter, "results")
        parser.add_lightning_class_args(SamplesPerSecond, "samples_per_second")
        parser.add_lightning_class_args(SimilarityWriter, "similarities")
        parser.add_lightning_class_args(SuspectsWriter, "suspects")
        parser.add_lightning_class_args(BackdoorDetection, "detection")
        parser.add_lightning_class_args(EndTogether, "end_together")
        parser.add_lightning_class_args(CompactProgressBar, "progress_bar")
        # Lightning's bar may be drawn a hundred times a second, beside the training on the same cores.
        parser.set_defaults({"progress_bar.leave": True, "progress_bar.refresh_rate": 10})
        parser.add_lightning_class_args(RandomStates, "random_states")
        # Before the schedule, which starts from the settings.
        parser.add_lightning_class_args(ResumedSettings, "resumed_settings")
        parser.add_lightning_class_args(ResumedSchedule, "resumed_schedule")
        parser.add_lightning_class_args(FiniteLoss, "finite_loss")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        # The last one: nothing is chosen by what an attack did.
        parser.set_defaults(
            {"checkpoint.save_last": True, "checkpoint.save_top_k": 0, "checkpoint.save_on_train_epoch_end": True}
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Import what the user asks for, before its classes are named."""
        import_modules(asked_imports(sys.argv[1:] if args is None else args))
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Leave the config as the user wrote it.

        LightningCLI would replace the model's arguments by those in the checkpoint, and import the class that the file
        names.
        """

    def before_instantiate_classes(self) -> None:
        """Settle the run folder, the loggers and the checkpoint, before anything is built."""
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        trainer, fits = config["trainer"], self.subcommand == "fit"
        settle_trainer(trainer)
        self._starts_its_own = settle_tasks(trainer)
        checkpoint = config.get("ckpt_path")
        if checkpoint:
            # Not in the config that is saved, which repeats the run from its start.
            config["ckpt_path"] = None
        if trainer["default_root_dir"] is None:
            beside = checkpoint and not fits and Path(checkpoint).is_file()
            new = (self.subcommand or "run", self._alone)
            folder = str(Path(checkpoint).parent) if beside else _new_run_folder(*new)
            trainer["default_root_dir"] = folder
        folder = trainer["default_root_dir"]
        if self.subcommand in ("validate", "test", "predict") and not checkpoint:
            rank_zero_info(f"{self.subcommand} has no --ckpt_path: {_weights_without_checkpoint(config)}")
        # SLURM starts a job again with the same command, after a requeue or when a node has failed.
        requeued = fits and os.environ.get("SLURM_RESTART_COUNT", "").strip("0").isdecimal()
        first = rank_zero_only.rank == 0 and not trainer["fast_dev_run"]  # type: ignore[attr-defined]
        if fits and first:
            self._alone.enter_context(held_folder(folder))
            self._alone.callback(_drop_empty_log, folder)
        given = checkpoint
        if checkpoint == "last" or (requeued and not checkpoint):
            checkpoint = last_checkpoint(Path(folder))
            if checkpoint is None and not fits:
                raise UserMistake(f"{folder} has no last.ckpt: there is nothing to {self.subcommand}")
            if checkpoint is None:
                rank_zero_info(f"{folder} has no checkpoint yet: the run starts from its beginning")
        elif checkpoint:
            checkpoint = whole_checkpoint(checkpoint)
        if checkpoint:
            check_checkpoint(checkpoint, fits)
        if first and not requeued:
            check_folder(folder, given, self.subcommand or "run", trainer)
        self._checkpoint: str | None = checkpoint
        self._seen_before: str | None = None

    def instantiate_classes(self) -> None:
        """Build everything, and see that a checkpoint fits."""
        torch.set_float32_matmul_precision("high")
        super().instantiate_classes()
        if self.subcommand == "fit":
            check_steps(self.trainer, self.model)
            check_averaging(self.trainer)
        if self._checkpoint and self._checkpoint not in CHECKPOINT_NAMES:
            content = check_model(self._checkpoint, self.model)
            if self.subcommand == "fit":
                check_same_module(self._checkpoint, content, self.model)
                self._seen_before = samples_seen(content)
            if self.subcommand == "fit" and isinstance(self.datamodule, datamodules.ImageTextDataModule):
                with reading("checkpoint", self._checkpoint):
                    self.datamodule.check_poison(content.get(type(self.datamodule).__qualname__) or {})

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Put logs and whole checkpoints into the run folder; leave out the callbacks that switches turn off.

        The saved config keeps none of this: it can be given to ``validate``, or to another ``fit``.
        """
        folder = config["default_root_dir"]
        if config["logger"] is None or config["logger"] is True:
            config["logger"] = _loggers(folder) if self.subcommand == "fit" else False
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, WholeCheckpointIO()]
        config["plugins"] = [*plugins, LightningEnvironment()] if self._starts_its_own else plugins
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = os.path.realpath(folder)
        if config["enable_progress_bar"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        if config["enable_checkpointing"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        trainer = super()._instantiate_trainer(config, callbacks)
        together = next((callback for callback in callbacks if isinstance(callback, EndTogether)), None)
        if (
            together is not None
            and not isinstance(config["strategy"], Strategy)
            and hasattr(trainer.strategy, "_timeout")
        ):
            # Lightning takes it only with a strategy that a config spells out.
            trainer.strategy._timeout = timedelta(seconds=together.timeout_seconds)
        if isinstance(trainer.accelerator, CPUAccelerator) and (slow := slow_precision(str(trainer.precision))):
            rank_zero_info(slow)
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        settled: dict[str, Any] = {"weights_only": True, "ckpt_path": self._checkpoint}
        if subcommand == "predict":
            settled["return_predictions"] = False
        return {**super()._prepare_subcommand_kwargs(subcommand), **settled}

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; what a checkpoint holds and cannot be restored is a fault of the file."""
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            given = self._checkpoint not in (None, *CHECKPOINT_NAMES)  # what Lightning finds may be no file at all
            if given and user_message(error) is None and is_restoring(error):
                raise UserMistake(
                    f"checkpoint {self._checkpoint} cannot be restored: {reason(error)}; it is damaged, or of another "
                    "model, data set or version"
                ) from error
            raise

    def after_fit(self) -> None:
        """Measure the model that training ended with, unless that was done, and say where everything lies."""
        trainer: Any = self.trainer  # most of its attributes are set by connectors, out of sight of a type checker
        results = next(callback for callback in trainer.callbacks if isinstance(callback, ResultsWriter))
        # A run that was too short to validate has prepared no loader for it.
        zero_shot = getattr(self.datamodule, "zero_shot", trainer.num_val_batches)
        measurable = zero_shot and trainer.limit_val_batches and not trainer.fast_dev_run
        if measurable and results.measured_at != trainer.global_step and not trainer.interrupted:
            trainer.validate(self.model, self.datamodule, verbose=False)
        if none := [name for name in ("max_epochs", "max_steps", "limit_train_batches") if getattr(trainer, name) == 0]:
            rank_zero_warn(f"Nothing was trained, as trainer.{none[0]} is 0: the figures are those of the start")
        if self._seen_before == str(results.state_dict()["samples_seen"]):
            rank_zero_info(f"Nothing was trained: the run of {self._checkpoint} was over, see trainer.max_epochs")
        rank_zero_info(f"Run folder: {self.trainer.default_root_dir}")


def _weights_without_checkpoint(config: Any) -> str:
    """What a run without a checkpoint has for weights."""
    start = (config["model"].get("init_args") or {}).get("init_from")
    return (
        f"the weights are those of model.init_from, {start}" if start else "it measures the initial weights, untrained"
    )


def _quieten() -> None:
    """Keep off the console what is no news to a user of this project."""
    # Lightning asks torch for a class that it is about to rename.
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
    # The stream splits itself among the workers, which Lightning cannot know.
    warnings.filterwarnings("ignore", "Your `IterableDataset` has `__len__` defined")
    # Nothing is chosen as the best, so no best score is lost.
    warnings.filterwarnings("ignore", "The dirpath has changed")
    # Of a run that was stopped before it had logged anything; what a run has logged is never deleted.
    warnings.filterwarnings("ignore", "Experiment logs directory")
    # Without a zero-shot set nothing is validated, as the user asked for.
    warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
    # The size that it estimates is of no use here.
    warnings.filterwarnings("ignore", "Precision .* is not supported by the model summary")
    # Advertisements.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )


def _loggers(folder: str) -> list[Logger]:
    """CSV and TensorBoard, in the run folder itself."""
    # CSVLogger deletes the metrics.csv that it finds: a run that is continued writes its own beside it.
    sessions = len(list(Path(folder).glob("**/metrics.csv")))
    version = f"resumed-{sessions}" if sessions else ""
    return [CSVLogger(folder, name="", version=version), TensorBoardLogger(folder, name="", version=version)]


def _drop_empty_log(folder: str) -> None:
    """Of a run that a mistake ended before it began, TensorBoard's file would be left, with nothing in it."""
    if not Path(folder, CONFIG).exists():
        for events in Path(folder).glob(f"events.out.tfevents.*.{os.getpid()}.*"):
            events.unlink(missing_ok=True)


def _new_run_folder(command: str, until_the_end: ExitStack) -> str:
    # The processes of a job agree on it: those that Lightning starts inherit it, those of SLURM and torchrun share ids.
    # A job may hold several commands, and one that is requeued gives each of them again.
    ids = [os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID") if name in os.environ]
    stamp = "-".join([*ids, sha256("\0".join(sys.argv[1:]).encode()).hexdigest()[:6]]) if ids else None
    stamp = stamp or os.environ.get("UNTRIGGER_RUN")
    if stamp is None:
        folder = until_the_end.enter_context(claimed_folder(f"runs/{command}-{datetime.now():%Y%m%d-%H%M%S}"))
        stamp = os.environ["UNTRIGGER_RUN"] = folder.name.removeprefix(f"{command}-")
    return str(Path("runs", f"{command}-{stamp}"))
