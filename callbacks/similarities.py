"""Image-text similarity of every pair, by key."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer

from ..contracts import PredictOutputs
from ..tables import text_cell


class SimilarityWriter(Callback):
    """Writes what ``predict`` finds to ``similarities.csv`` in the run folder, a row ``key,similarity`` for each pair.

    Modules that find more than that of a pair (``LocalDensity``) have a column for each score.

    Rows are written as they come, in the order of the shards, so memory does not grow with the data. A key that a
    spreadsheet would take for a formula has a quote in front, as in ``results.csv``. Of several processes each writes
    its part to ``similarities-RANK.csv``. An earlier file is replaced when the run ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._file: TextIO | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file under a temporary name."""
        target = self._target(trainer)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.with_suffix(".tmp").open("w", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer = csv.writer(self._file)
        self._headed = False

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: PredictOutputs,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a batch."""
        columns = {"similarity": outputs["similarity"], **outputs.get("scores", {})}
        if not self._headed:
            self._writer.writerow(["key", *map(text_cell, columns)])
            self._headed = True
        cells = ([f"{score:.6f}" for score in scores.tolist()] for scores in columns.values())
        self._writer.writerows(zip(map(text_cell, outputs["key"]), *cells, strict=True))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the file its name."""
        if self._file is not None:
            self._file.close()
            self._file = None
            target = self._target(trainer)
            target.with_suffix(".tmp").replace(target)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._target(trainer).with_suffix(".tmp").unlink()

    def _target(self, trainer: Trainer) -> Path:
        name = f"similarities-{trainer.global_rank}" if trainer.world_size > 1 else "similarities"
        return Path(trainer.default_root_dir, f"{name}.csv")
