"""A progress bar that fits a terminal."""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn
from rich.table import Column

from ...contracts import PhasedModule

_SECONDS_BETWEEN_READINGS = 0.5
_WIDTH_OF_A_LOG = 120
"""Characters of a line where the console is no terminal, which has a width, and ``COLUMNS`` does not say another."""
_WIDE = 110
"""Characters from which on there is room for speeds."""
_SPEED = "train/samples_per_second"
_SHORT = {
    "val/clean_accuracy": ("CA", "{:.1%}"),
    "val/attack_success_rate": ("ASR", "{:.1%}"),
    "train/loss": ("loss", "{:.3f}"),
    _SPEED: ("samples/s", "{:,.0f}"),
}
"""The figures that are named shortly; they stand first, in this order."""


class CompactProgressBar(RichProgressBar):
    """Lightning's rich progress bar with short names, and without a wait for the device at every step.

    Lightning's reads each shown figure from the device after every batch; this one does so twice a second at most. It
    keeps to one line: what gets narrower is the bar.

    Args:
        *args: As ``RichProgressBar``.
        label: What stands before the epoch or the phase, such as which of several runs this is.
        **kwargs: As ``RichProgressBar``.
    """

    def __init__(self, *args: Any, label: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label = label
        if "width" not in self._console_kwargs and "COLUMNS" not in os.environ and not Console().is_terminal:
            self._console_kwargs = {**self._console_kwargs, "width": _WIDTH_OF_A_LOG}

    _due = 0.0
    _shown: dict[str, int | str | float | dict[str, float]] | None = None

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The figures beside the bar: clean accuracy and attack success in percent, without the logger's version."""
        now = perf_counter()
        if self._shown is not None and trainer.training and now < self._due:
            return self._shown
        self._due = now + _SECONDS_BETWEEN_READINGS
        figures: dict[str, Any] = super().get_metrics(trainer, pl_module)
        figures.pop("v_num", None)
        self._shown = {}
        if self._narrow:
            figures.pop(_SPEED, None)
        for key in sorted(figures, key=_place):
            value = figures[key]
            name, form = _SHORT.get(key, (key, "{}"))
            self._shown[name] = form.format(value) if key in _SHORT else value
        return self._shown

    @property
    def _narrow(self) -> bool:
        return self._console is not None and self._console.width < _WIDE

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Lightning's columns on one line, without a speed where there is little room."""
        columns: list[ProgressColumn] = super().configure_columns(trainer)
        if self._narrow:
            columns = [column for column in columns if not isinstance(column, ProcessingSpeedColumn)]
        for column in columns:
            _keep_to_one_line(column)
        return columns

    def _init_progress(self, trainer: Trainer) -> None:
        super()._init_progress(trainer)
        if self._metric_component is not None:
            _keep_to_one_line(self._metric_component)

    def _get_train_description(self, current_epoch: int) -> str:
        """The phase instead of the epoch, where there are phases: nobody knows their last epoch."""
        module = self.trainer.lightning_module
        if isinstance(module, PhasedModule):
            description = f"{module.phase.capitalize():{len(self.validation_description)}}"
        else:
            description = super()._get_train_description(current_epoch)
        return f"{self.label} {description}" if self.label else description


def _place(key: str) -> int:
    return list(_SHORT).index(key) if key in _SHORT else len(_SHORT)


def _keep_to_one_line(column: ProgressColumn) -> None:
    if not isinstance(column, BarColumn):
        column._table_column = Column(no_wrap=True)
