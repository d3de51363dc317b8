"""One run of the detectors: of which model, on which pairs, and what it leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...files.fingerprints import fingerprint
from ...files.reading import shown
from ...files.tables import text_cell
from ...lightning_modules import PairDetectors
from ...lightning_modules.encoders.identify import identify_encoder
from ...run_folder.config import CONFIG, read_config
from ...run_folder.detection import read_detection
from ...run_folder.manifest import MANIFEST
from ...trainer.checkpoints import LAST
from ..trainer_runs import config_for, fit_or_resume

SCORES = "scores.csv"


@dataclass(frozen=True)
class Subject:
    """A poisoned model and its pairs."""

    name: str
    """The folder's."""
    model: Path
    encoder: str
    shards: tuple[str, ...]
    manifest: Path | None
    """Which pairs are poisoned, and how; None where that is not known, or the shards have been baked."""

    @property
    def asked(self) -> dict[str, Any]:
        """What distinguishes this question from others."""
        return {"model": str(self.model), "content": fingerprint(self.model), "shards": self.shards}


def subject_of(run: Path, shards: str | None) -> Subject:
    """Look into a run folder. Nothing in it is run.

    Args:
        run: The folder.
        shards: The pairs; what the run's config names unless given.

    Raises:
        UserMistake: If it holds no finished run, or does not say what it was trained on.
    """
    model = run / LAST
    if not model.is_file():
        raise UserMistake(f"run folder {shown(run)} holds no {LAST}: give the folder of a finished run")
    config = None if shards is not None else read_config(run)
    streamed = (shards,) if shards is not None else config.train_shards if config is not None else ()
    if not streamed:
        raise UserMistake(f"{shown(run / CONFIG)} does not say what the model was trained on: give --shards")
    manifest = run / MANIFEST
    name = run.resolve().name
    return Subject(name, model, identify_encoder(str(model)), streamed, manifest if manifest.is_file() else None)


def rank_pairs(
    subject: Subject, folder: Path, config: str | None, isolation_epochs: int | None
) -> list[dict[str, str]]:
    """Let every detector rank the pairs, or resume where it was stopped.

    Args:
        subject: The model and its pairs.
        folder: Where the run and the scores go.
        config: A config of the detectors; one of the package's unless given.
        isolation_epochs: Epochs of ABL's fresh model, as the config says unless given.

    Returns:
        How well each detector ranks, by column; empty where it is not known which pairs are poisoned.

    Raises:
        UserMistake: If the config is of something else.
    """
    chosen = config_for(subject.encoder, config, "pair_detectors/cifar10.yaml", "pair_detectors/cc3m_rn50.yaml")
    shards = subject.shards[0] if len(subject.shards) == 1 else json.dumps(subject.shards)
    overrides = ["--model.encoder", subject.encoder, "--model.init_from", str(subject.model)]
    overrides += ["--data.train_shards", shards]
    if subject.manifest is not None:
        overrides += ["--data.poison", str(subject.manifest)]
    if isolation_epochs is not None:
        overrides += ["--model.isolation_epochs", str(isolation_epochs)]
    module = fit_or_resume(chosen, overrides, folder, PairDetectors)
    _write_scores(folder, module)
    return [{"detector": row.pop("score"), **row} for row in read_detection(folder)]


def _write_scores(folder: Path, module: PairDetectors) -> None:
    unfinished = (folder / SCORES).with_suffix(".tmp")
    with unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["key", *map(text_cell, module.scores)])
        columns = [[f"{score:.6g}" for score in column.tolist()] for column in module.scores.values()]
        writer.writerows(zip(map(text_cell, module.keys), *columns, strict=True))
    unfinished.replace(folder / SCORES)
