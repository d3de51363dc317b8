"""Image-text similarity of every pair, by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ...contracts import PredictOutputs
from ...run_folder.similarities import SimilarityTable


class SimilarityWriter(Callback):
    """Writes what ``predict`` finds to ``similarities.csv`` in the run folder, a row ``key,similarity`` for each pair.

    Modules that find more than that of a pair (``LocalDensity``) have a column for each score.

    Rows are written as they come, in the order of the shards, so memory does not grow with the data. A key that a
    spreadsheet would take for a formula has a quote in front, as in ``results.csv``. Of several processes each writes
    its part to ``similarities-RANK.csv``. An earlier file is replaced when the run ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._table: SimilarityTable | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file under a temporary name."""
        part = trainer.global_rank if trainer.world_size > 1 else None
        self._table = SimilarityTable(Path(trainer.default_root_dir), part)

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
        assert self._table is not None, "it was opened when the run started"
        scores = {"similarity": outputs["similarity"], **outputs.get("scores", {})}
        self._table.add(outputs["key"], {name: score.tolist() for name, score in scores.items()})

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the file its name."""
        if self._table is not None:
            self._table.finish()
            self._table = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half file."""
        if self._table is not None:
            self._table.discard()
            self._table = None
