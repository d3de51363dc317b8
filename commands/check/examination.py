"""Run the detectors of a check, on a model with its data or on the model alone. No ground truth is read."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...datamodules.generated import write_generated_data
from ...datamodules.shards import expand_shards
from ...datamodules.shards.remote import is_remote
from ...files.fingerprints import fingerprint
from ...files.reading import reading, user_path
from ...lightning_modules import DECREE, UBT
from ...run_folder.similarities import read_similarities
from ...run_folder.suspects import poisoned_keys
from ...run_folder.ubt import ProbedWord, UBTRecord
from ..trainer_runs import config_for, fit_or_resume, run_trainer

DENSITIES = ("k_distance", "slof", "dao")
_PICTURES, _STEPS, _BATCH = 2_000, 1_200, 128


@dataclass(frozen=True)
class Pairs:
    """What UBT and the local density make of the training pairs."""

    alarm: bool
    pairs: int
    poisoned: int
    """Pairs that it would unlearn."""
    suspicious: int
    """Pairs that it would neither unlearn nor retain."""
    words: list[str]
    """Compromised words."""
    verdicts: list[ProbedWord]
    """What the probes said of each word, round by round."""
    density: dict[str, float]
    """By score, the mean percentile of the poisoned pairs among all, in [0, 1]; empty where none is."""

    @property
    def left_out(self) -> int:
        """Pairs that ``--data.exclude suspects.csv`` leaves out."""
        return self.poisoned + self.suspicious

    @property
    def gravest(self) -> list[ProbedWord]:
        """Of the model as it came, found words, or else the three whose suspects moved most surely."""
        by_word: dict[str, ProbedWord] = {}  # a word that stood out was probed more than once
        for word in sorted(self.verdicts, key=lambda word: (not word.found, word.p)):
            if not word.round:
                by_word.setdefault(word.word, word)
        return [word for word in by_word.values() if word.found] or list(by_word.values())[:3]


@dataclass(frozen=True)
class Inversion:
    """What DECREE makes of the image encoder."""

    found: bool
    l1_norm: float
    p_l1_norm: float
    """Size of the smallest trigger as a share of the whole picture, in [0, 1]."""


@dataclass(frozen=True)
class Subject:
    """What is checked, and where its runs go."""

    model: Path
    encoder: str
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """As a Lightning module takes it."""
        # A transformers folder is its own name, with its weights.
        itself = self.encoder == f"hf:{self.model}"
        weights = [] if itself else ["--model.init_from", str(self.model)]
        return ["--model.encoder", self.encoder, *weights]


def content_of(model: str, config: str | None, *shards: str | None) -> list[str]:
    """What shows that a model, a config or shards are others under the same name; shards on a server have no more.

    Args:
        model: Path of the model.
        config: Path of the config that it is examined by; None for one of the package's.
        shards: Shards, as ``--data.train_shards`` takes them; None where there are none.

    Returns:
        A fingerprint of each file.

    Raises:
        UserMistake: If one cannot be read.
    """
    paths = [path for spec in shards if spec is not None for path in expand_shards(spec) if not is_remote(path)]
    with reading("model", model):
        found = [fingerprint(user_path(model, "model")), *map(fingerprint, paths)]
    if config is not None:
        with reading("config", config):
            found.append(fingerprint(user_path(config, "config")))
    return found


def examine_pairs(subject: Subject, shards: str, config: str | None) -> Pairs:
    """Let UBT look for poisoned pairs, and rank them by local density beside it.

    Args:
        subject: The model.
        shards: Its training pairs.
        config: A config of UBT; one of the package's unless given.

    Returns:
        What was found. The runs stay in the folders ``ubt`` and ``density``.

    Raises:
        UserMistake: If the config is of something else.
    """
    chosen = config_for(subject.encoder, config, "ubt/cifar10.yaml", "ubt/finetune_rn50.yaml")
    data = ["--data.train_shards", shards]
    fit_or_resume(chosen, [*subject.arguments, *data], subject.folder / "ubt", UBT)
    density = subject.folder / "density"
    run_trainer(
        "predict",
        None,
        [
            *("--model", "LocalDensityCLIP", *subject.arguments, "--data", "ImageTextDataModule", *data),
            *("--data.num_workers", "1", "--trainer.devices", "1", "--trainer.default_root_dir", str(density)),
        ],
    )
    run = subject.folder / "ubt"
    found = UBTRecord.read(run)
    poisoned = poisoned_keys(run) if found.poisoned else frozenset[str]()
    return Pairs(
        found.alarm,
        found.pairs,
        found.poisoned,
        found.suspicious,
        found.compromised,
        found.verdicts,
        _percentiles(density, poisoned),
    )


def invert_trigger(subject: Subject, pictures: str | None) -> Inversion:
    """Look for a small trigger that makes all pictures embed alike.

    Args:
        subject: The model.
        pictures: Shards with any pictures; generated ones unless given.

    Returns:
        What was found. The run stays in the folder ``decree``, with the trigger.
    """
    if pictures is None:
        shapes = subject.folder / "shapes"
        if not shapes.exists():
            write_generated_data(shapes, _PICTURES, 10, seed=0, shard_size=1_000)
        pictures = str(shapes / "train")
    overrides = [*subject.arguments, "--data.train_shards", pictures, "--data.batch_size", str(_BATCH)]
    overrides += ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(_STEPS)]
    module = fit_or_resume("decree/cifar10.yaml", overrides, subject.folder / "decree", DECREE)
    return Inversion(module.found, module.l1_norm, module.p_l1_norm)


def _percentiles(folder: Path, poisoned: Set[str]) -> dict[str, float]:
    """Where the poisoned pairs stand among all of them, by each density."""
    if not poisoned:
        return {}
    keys, scores = read_similarities(folder, DENSITIES)
    chosen = np.array([key in poisoned for key in keys])
    return {name: _mean_percentile(column, chosen) for name, column in scores.items()}


def _mean_percentile(scores: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> float:
    ranks = scores.argsort(kind="stable").argsort(kind="stable")
    return float(ranks[chosen].mean() / max(len(scores) - 1, 1))
