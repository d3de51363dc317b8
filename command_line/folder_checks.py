"""Check that a run does not write over what another one has left in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contracts import UserMistake
from ..files.reading import shown
from ..lightning_modules.encoders.checkpoint_files import read_pickled
from ..run_folder.config import CONFIG
from ..run_folder.curves import METRICS
from ..run_folder.progress import samples_seen
from ..run_folder.results import RESULTS, read_results
from ..trainer.checkpoints import LAST, last_checkpoint
from .checkpoint_checks import CHECKPOINT_NAMES

_LIMITS = {"validate": "limit_val_batches", "test": "limit_test_batches", "predict": "limit_predict_batches"}


def check_folder(folder: str, checkpoint: str | None, subcommand: str, trainer: Mapping[str, Any]) -> None:
    """Check that a run does not replace what is of another one, and a measurement nothing of other weights.

    Those of an earlier checkpoint of the run are others, too. Nor figures of everything by those of a part.

    Args:
        folder: The run folder.
        checkpoint: As the user gave it.
        subcommand: ``fit``, ``validate``, ``test`` or ``predict``.
        trainer: The trainer's part of the config.

    Raises:
        UserMistake: If it would.
    """
    if not _holds_run(Path(folder)):
        return
    # One that was stopped before its first checkpoint begins again so, and its log stays.
    resumed = f"--ckpt_path {folder}/last.ckpt" if last_checkpoint(Path(folder)) else "--ckpt_path last"
    named = checkpoint is not None and checkpoint not in ("last", *CHECKPOINT_NAMES)
    another = named and not Path(str(checkpoint)).resolve().is_relative_to(Path(folder).resolve())
    if subcommand in _LIMITS:
        if another or checkpoint is None:
            raise UserMistake(
                f"{folder} holds a run, whose figures would be replaced by those of other weights: give {resumed}, or "
                "another --trainer.default_root_dir"
            )
        if named and not _is_measured(Path(folder), Path(str(checkpoint))):
            raise UserMistake(
                f"{shown(str(checkpoint))} is not the checkpoint that the figures in {folder} are of, and they would "
                "be replaced: give another --trainer.default_root_dir"
            )
        _check_limit(folder, _LIMITS[subcommand], trainer)
    elif another:
        raise UserMistake(
            f"{folder} already holds a run, and {shown(str(checkpoint))} is not of it: give another "
            "--trainer.default_root_dir"
        )
    elif checkpoint is None:
        raise UserMistake(
            f"{folder} already holds a run: continue it with {resumed}, or give another --trainer.default_root_dir"
        )


def _holds_run(folder: Path) -> bool:
    """Whether there is a config beside a checkpoint, a log or results; alone it is of a run that was refused."""
    left = (folder / RESULTS, folder / METRICS, *folder.glob("*.ckpt"))
    return (folder / CONFIG).exists() and any(path.exists() for path in left)


def _is_measured(folder: Path, checkpoint: Path) -> bool:
    """Whether a checkpoint of a run is the last one, or has seen as many pairs as those that were measured."""
    if checkpoint.resolve() == (folder / LAST).resolve():
        return True
    samples = samples_seen(read_pickled(checkpoint))
    return all(row["samples_seen"] == samples for row in read_results(folder))


def _check_limit(folder: str, limit: str, trainer: Mapping[str, Any]) -> None:
    asked = trainer[limit]
    if not (asked is None or (isinstance(asked, float) and asked == 1)):
        raise UserMistake(
            f"trainer.{limit} is {asked}, and {folder} holds a run, whose figures of everything would be replaced: "
            "give another --trainer.default_root_dir"
        )
