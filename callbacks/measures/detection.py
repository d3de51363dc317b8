"""How well a defence separates poisoned pairs from benign ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ...contracts import DECISIONS, DetectingModule, GroundTruth, Suspicion
from ...run_folder.detection import detection_row, write_detection
from ...trainer.lookup import data_of
from .ranking import ranking_figures


class BackdoorDetection(Callback):
    """Compares what a ``DetectingModule`` suspects with the manifest, by key, for evaluation alone.

    The truth is the data module's ``poisoned_keys``; where none is known, nothing is measured. Whenever the module has
    drawn its conclusions, and at the end, each of its scores gets a row in ``detection.csv`` in the run folder: ROC
    AUC, average precision, and the precision of the k pairs with the highest score.

    Logs:
        ``suspects/roc_auc``, ``suspects/average_precision`` and ``suspects/precision_at_K`` of the score on which the
        decision rests; ``suspects/precision`` and ``suspects/recall`` of the pairs that are unlearnt;
        ``suspects/reported_precision`` and ``suspects/reported_recall`` of all that are not benign, which
        ``--data.exclude suspects.csv`` leaves out of a training, and ``suspects/clean_left_out``, the number of clean
        pairs among them. To the loggers directly, since it happens between epochs.

    Args:
        precision_at: The numbers k.
    """

    def __init__(self, precision_at: tuple[int, ...] = (64, 128, 256)) -> None:
        super().__init__()
        self.precision_at = precision_at
        self._done: str | None = None
        self._rows: list[dict[str, str]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what was concluded at the end of the last epoch."""
        self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what was concluded at the end of the run."""
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = pl_module.suspicion if isinstance(pl_module, DetectingModule) else None
        rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        if found is None or found.about == self._done or rehearsal or not trainer.is_global_zero:
            return
        self._done = found.about
        data = data_of(trainer, GroundTruth)
        known = data.poisoned_keys if data is not None else frozenset()
        truth = np.array([key in known for key in found.keys])
        if not truth.any() or truth.all():
            return
        figures = {
            name: ranking_figures(torch.from_numpy(score), truth, self.precision_at)
            for name, score in found.scores.items()
        }
        unlearnt = found.decision == DECISIONS.index("poisoned")
        reported = found.decision != DECISIONS.index("benign")
        decided = {
            "precision": _share(truth, unlearnt),
            "recall": _share(unlearnt, truth),
            "reported_precision": _share(truth, reported),
            "reported_recall": _share(reported, truth),
            "clean_left_out": float((reported & ~truth).sum()),
        }
        last = next(reversed(figures.values()))
        for logger in trainer.loggers:
            logger.log_metrics({f"suspects/{name}": v for name, v in (last | decided).items()}, trainer.global_step)
        decision = "no pair is reported"
        if reported.any():
            decision = (
                f"of {int(unlearnt.sum()):,} to unlearn {decided['precision']:.1%} are poisoned, "
                f"{decided['recall']:.1%} of all {int(truth.sum()):,}; {decided['reported_recall']:.1%} are reported, "
                f"beside {int(decided['clean_left_out']):,} clean pairs"
            )
        rank_zero_info(f"Detection after {found.about}: ROC AUC {last['roc_auc']:.3f}; {decision}")
        self._write(trainer, found, figures, decided)

    def _write(
        self, trainer: Trainer, found: Suspicion, figures: dict[str, dict[str, float]], decided: dict[str, float]
    ) -> None:
        for name, measured in figures.items():
            values = measured | (decided if name == next(reversed(figures)) else dict.fromkeys(decided, float("nan")))
            self._rows.append(detection_row(found.about, name, values))
        write_detection(Path(trainer.default_root_dir), self._rows)

    def state_dict(self) -> dict[str, object]:
        """What was measured so far, as plain data."""
        return {"done": self._done, "rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Continue from an earlier session."""
        rows = state_dict["rows"]
        assert isinstance(rows, list), "it is what state_dict gave"
        self._done = None if state_dict["done"] is None else str(state_dict["done"])
        self._rows = [dict(row) for row in rows]


def _share(hits: np.ndarray, of: np.ndarray) -> float:
    """The share of hits, NaN of none."""
    return float(hits[of].mean()) if of.any() else float("nan")
