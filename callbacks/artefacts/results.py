"""The row that a run leaves in ``results.csv``."""

from __future__ import annotations

import math
from collections.abc import Sized
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from ...contracts import CLIPModule, HeadModule, HeldOutData, PhasedModule, PictureAttackData, ZeroShotData
from ...run_folder.results import ATTACK_MEASURES, MORE_ATTACK_MEASURES, RETRIEVAL_MEASURES, add_results, read_results
from ...trainer.lookup import data_of, folder_to_write
from ...trainer.seed import run_seed
from ..measures.retrieval import Retrieval
from ..measures.zero_shot_measure import ZeroShotMeasure
from ..requirements import clip_module, zero_shot_data


class ResultsWriter(Callback):
    """Writes ``results.csv`` in the run folder (``trainer.default_root_dir``).

    There is a row for each attack that is measured, its controls and those on given pictures among them, or one with
    the attack ``none``; where the module has a head of its own, as many for the head, under its own defence. The
    columns are those of `run_folder.results.COLUMNS` and, of an attack on test pictures, what else is measured of it.
    Rows are written after ``fit``, if its last validation was at its end, and after ``validate`` and ``test``; an
    earlier row of the same dataset, attack, defence and seed is replaced. Where there are held-out pairs and no
    classes, the rows of a fit hold what `Retrieval` measures.

    ``defence`` is what the module says when the run starts, which is logged then; it travels in the checkpoint too.

    ``seconds`` is the wall time of ``fit`` and ``samples_seen`` the number of training pairs over all ranks, both with
    the earlier sessions of a resumed run: they travel in the checkpoint, and an evaluation of a checkpoint shows what
    that checkpoint took. An evaluation of a model that was not trained here shows zeros. The seed is the one of
    ``seed_everything``, 0 where there was none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._figures: dict[str, float] = {}
        self._own: list[str] = []
        self._seconds = 0.0
        self._samples = 0
        self._started: float | None = None
        self._defence: str | None = None
        self.measured_at: int | None = None
        """The step after which the figures were measured, in this session."""

    def state_dict(self) -> dict[str, Any]:
        """What the run took and measured so far, as plain data."""
        return {
            "seconds": self._elapsed(),
            "samples_seen": self._samples,
            "figures": dict(self._figures),
            "defence": self._defence,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from an earlier session."""
        self._seconds = float(state_dict["seconds"])
        self._samples = int(state_dict["samples_seen"])
        self._figures = {str(name): float(value) for name, value in state_dict["figures"].items()}
        known = state_dict.get("defence")  # not in the checkpoints of earlier releases
        self._defence = None if known is None else str(known)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before training, not after it, if an existing file is not a results file."""
        read_results(Path(trainer.default_root_dir))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and say what the run is called."""
        self._started = perf_counter()
        if isinstance(pl_module, CLIPModule):
            self._defence = pl_module.defence
            rank_zero_info(f"In results.csv, the defence of this run of {type(pl_module).__name__} is {self._defence}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the pairs of all ranks, which get batches of the same size."""
        self._samples += len(batch["key"]) * trainer.world_size

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures; after ``validate``, write them."""
        if trainer.sanity_checking or (isinstance(pl_module, PhasedModule) and pl_module.measured):
            return  # nothing, or a copy that the run does not end with
        self._keep("val", trainer)
        self.measured_at = trainer.global_step
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures of the test."""
        self._keep("test", trainer)
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock and write the figures of the last validation."""
        self._seconds, self._started = self._elapsed(), None
        if isinstance(pl_module, PhasedModule) and pl_module.restored:
            self.measured_at = None
        if self.measured_at == trainer.global_step or self._measure_retrieval(trainer, pl_module):
            self._write(trainer)
        elif self._figures:
            rank_zero_info("The last validation was before the last step: the results are those of a validate")

    def _elapsed(self) -> float:
        return self._seconds + (0.0 if self._started is None else perf_counter() - self._started)

    def _keep(self, stage: str, trainer: Trainer) -> None:
        known = ("clean_accuracy", *ATTACK_MEASURES, *MORE_ATTACK_MEASURES, *RETRIEVAL_MEASURES)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # a connector sets it
        logged = chain.from_iterable(call.logged for call in callbacks if isinstance(call, ZeroShotMeasure))
        self._own = [name for name in dict.fromkeys(logged) if name not in known]
        measured = {f"{stage}/{prefix}{measure}" for prefix in ("", "head_") for measure in (*known, *self._own)}
        self._figures = {
            key.removeprefix(f"{stage}/"): float(value)
            for key, value in trainer.callback_metrics.items()
            if "/".join(key.split("/")[:2]) in measured
        }

    def _measure_retrieval(self, trainer: Trainer, module: LightningModule) -> bool:
        """Measure and log retrieval, where there are held-out pairs and no classes to validate with."""
        data = data_of(trainer, HeldOutData)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # a connector sets it
        retrieval = next((callback for callback in callbacks if isinstance(callback, Retrieval)), None)
        if data is None or data.held_out_pairs == 0 or retrieval is None or _has_classes(trainer):
            return False
        self._figures = retrieval.measure(trainer, module, data)
        for logger in trainer.loggers:
            logger.log_metrics({f"val/{name}": value for name, value in self._figures.items()}, trainer.global_step)
        return True

    def _write(self, trainer: Trainer) -> None:
        folder = folder_to_write(trainer) if self._figures else None
        if folder is not None:
            empty = sorted(name for name, value in self._figures.items() if math.isnan(value))
            if empty:
                rank_zero_warn(f"There is no test picture to measure {', '.join(empty)} on: results.csv has nan there")
            if part := _part_measured(trainer):
                rank_zero_info(f"The figures in results.csv are of a part of the test set: {part}")
            add_results(folder, self._rows(trainer))

    def _rows(self, trainer: Trainer) -> list[dict[str, str]]:
        module = clip_module(trainer)
        rows = self._classifier_rows(trainer, self._defence or module.defence)
        return (
            rows + self._classifier_rows(trainer, module.head_defence, "head_")
            if isinstance(module, HeadModule)
            else rows
        )

    def _classifier_rows(self, trainer: Trainer, defence: str, prefix: str = "") -> list[dict[str, str]]:
        data = zero_shot_data(trainer)
        row = {
            "dataset": data.dataset_name,
            "attack": "none",
            "defence": defence,
            "seed": str(run_seed()),
            "clean_accuracy": self._cell(f"{prefix}clean_accuracy"),
            **dict.fromkeys(ATTACK_MEASURES, ""),
            "seconds": f"{self._elapsed():.1f}",
            "samples_seen": str(self._samples),
        }
        row |= {
            measure: self._cell(measure) for measure in RETRIEVAL_MEASURES if not prefix and measure in self._figures
        }
        names = self._attacks(trainer, data)
        # A single attack is logged under the plain keys only.
        plain = names[:1] if len(names) == 1 else []
        if (
            not prefix and isinstance(data, PictureAttackData) and _has_classes(trainer)
        ):  # a head is not asked about given pictures
            names += [attack.name for attack in data.picture_attacks]
            plain = names if len(names) == 1 else plain
        return [
            row | {"attack": name} | self._attack_cells(prefix, "" if name in plain else f"/{name}") for name in names
        ] or [row | self._own_cells(prefix, "")]

    def _attacks(self, trainer: Trainer, data: ZeroShotData) -> list[str]:
        named = [attack.name for attack in data.attacks] if _has_classes(trainer) else []
        # An attack whose trigger is in the caption is measured on held-out pairs alone.
        held_out = list(data.held_out_attacks) if isinstance(data, HeldOutData) and data.held_out_pairs else []
        return named or held_out

    def _attack_cells(self, prefix: str, suffix: str) -> dict[str, str]:
        measured = {
            measure: self._cell(f"{prefix}{measure}{suffix}") for measure in (*ATTACK_MEASURES, *MORE_ATTACK_MEASURES)
        }
        kept = {measure: text for measure, text in measured.items() if text or measure in ATTACK_MEASURES}
        return kept | self._own_cells(prefix, suffix)

    def _own_cells(self, prefix: str, suffix: str) -> dict[str, str]:
        """The measures of the user's own: what each is of this attack, or of all where it has one figure for them."""
        cells = {name: self._cell(f"{prefix}{name}{suffix}") or self._cell(f"{prefix}{name}") for name in self._own}
        return {name: text for name, text in cells.items() if text}

    def _cell(self, name: str) -> str:
        return f"{self._figures[name]:.6g}" if name in self._figures else ""


def _part_measured(trainer: Trainer) -> str:
    """Of how many batches the figures are, where a limit leaves some out; empty where it leaves out none."""
    testing = trainer.state.fn == TrainerFn.TESTING
    counts = trainer.num_test_batches if testing else trainer.num_val_batches
    loaders = trainer.test_dataloaders if testing else trainer.val_dataloaders
    name = f"trainer.limit_{'test' if testing else 'val'}_batches"
    for count, loader in zip(counts, loaders if isinstance(loaders, list) else [loaders], strict=False):
        if isinstance(loader, Sized) and count < len(loader):
            return f"{count} of {len(loader)} batches, by {name}"
    return ""


def _has_classes(trainer: Trainer) -> bool:
    """Whether there is a zero-shot set: without one, a fit has nothing to validate with."""
    return trainer.state.fn != TrainerFn.FITTING or bool(trainer.val_dataloaders)
