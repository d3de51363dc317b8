"""The base class of callbacks that count over a zero-shot evaluation."""

from __future__ import annotations

from abc import abstractmethod

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ...contracts import ClassLogits, HeadModule, PhasedModule, ZeroShotBatch, ZeroShotData, ZeroShotOutputs
from ..evaluation_hooks import EvaluationHooks
from ..requirements import zero_shot_data
from .rate import Rate


def predictions(logits: Tensor) -> Tensor:
    """Zero-shot top-1.

    Args:
        logits: Logits, ``(B, C)``.

    Returns:
        ``(B,)`` int64; -1, which is no class, where a row is not finite: ``argmax`` would call a diverged model a
        perfect attack on class 0.
    """
    return torch.where(logits.isfinite().all(dim=1), logits.argmax(dim=1), -1)


class ZeroShotMeasure(EvaluationHooks):
    """Counts over the batches of ``validate`` and ``test`` and logs shares at the end of each epoch.

    A subclass says which rates it keeps (`rates`), counts a batch (`count`) and names what is logged (`figures`).
    Rates are summed over ranks, so that every rank logs the same figures; the sanity check is left out. Where the
    module is a ``HeadModule``, all is counted for its head too and logged with ``head_`` before the name. Where a
    ``PhasedModule`` says that it is not the model itself that is measured, what it says stands before the name, as in
    ``overfitted_``.

    What is logged reaches ``results.csv``, the tables of a bench and the report by itself, each name as a column: a
    share in [0, 1]. ``name/ATTACK`` is the value of one attack, where there are several.

    Args:
        prog_bar: Names of the figures that the progress bar shows; the head's are not.
    """

    def __init__(self, prog_bar: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._prog_bar = prog_bar
        self._rates: dict[str, Rate] = {}
        self._head_rates: dict[str, Rate] = {}
        self.logged: list[str] = []
        """Names of the figures of the last evaluation, without the stage and without those of single attacks: each is a
        column of ``results.csv``."""

    @abstractmethod
    def rates(self, data: ZeroShotData) -> list[str]:
        """Names of the rates that are counted in this evaluation; empty where nothing is."""

    @abstractmethod
    def count(self, label: Tensor, outputs: ClassLogits, rates: dict[str, Rate]) -> None:
        """Count a batch into the rates, by name, without waiting for the device.

        Args:
            label: Labels, ``(B,)`` int64.
            outputs: What a classifier makes of the batch.
            rates: That classifier's.
        """

    def figures(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is logged, by name without the stage, given the values of the rates over all ranks."""
        return values

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero, on the module's device."""
        names = self.rates(zero_shot_data(trainer))
        self._rates = {name: Rate().to(pl_module.device) for name in names}
        headed = isinstance(pl_module, HeadModule)
        self._head_rates = {name: Rate().to(pl_module.device) for name in names} if headed else {}

    def see(self, batch: ZeroShotBatch, outputs: ZeroShotOutputs) -> None:
        """Count a batch."""
        self.count(outputs["label"], outputs, self._rates)
        if self._head_rates:
            self.count(outputs["label"], outputs["head"], self._head_rates)

    def _log(self, stage: str, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        measured = pl_module.measured if isinstance(pl_module, PhasedModule) else ""
        own = f"{measured}_" if measured else ""
        self.logged = []
        for prefix, rates in ((own, self._rates), ("head_", self._head_rates)):
            values = {name: rate.compute() for name, rate in rates.items()}
            for name, value in (self.figures(values) if values else {}).items():
                if prefix == own:
                    self.logged += [name.partition("/")[0]]
                name = prefix + name
                # Ranks agree already; sync_dist only declares to Lightning that the figure is global.
                pl_module.log(f"{stage}/{name}", value, sync_dist=True, prog_bar=name in self._prog_bar)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures with the prefix ``val/``."""
        self._log("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures with the prefix ``test/``."""
        self._log("test", trainer, pl_module)
