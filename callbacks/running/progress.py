"""A progress bar that fits a terminal."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from ...contracts import PhasedModule

_SECONDS_BETWEEN_READINGS = 0.5
_SHORT = {
    "train/loss": ("loss", "{:.3f}"),
    "train/samples_per_second": ("samples/s", "{:,.0f}"),
    "val/clean_accuracy": ("CA", "{:.1%}"),
    "val/attack_success_rate": ("ASR", "{:.1%}"),
}


class CompactProgressBar(RichProgressBar):
    """Lightning's rich progress bar with short names, and without a wait for the device at every step.

    Lightning's reads each shown figure from the device after every batch; this one does so twice a second at most.

    Args:
        *args: As ``RichProgressBar``.
        label: What stands before the epoch or the phase, such as which of several runs this is.
        **kwargs: As ``RichProgressBar``.
    """

    def __init__(self, *args: Any, label: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label = label

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
        for key, value in figures.items():
            name, form = _SHORT.get(key, (key, "{}"))
            self._shown[name] = form.format(value) if key in _SHORT else value
        return self._shown

    def _get_train_description(self, current_epoch: int) -> str:
        """The phase instead of the epoch, where there are phases: nobody knows their last epoch."""
        module = self.trainer.lightning_module
        if isinstance(module, PhasedModule):
            description = f"{module.phase.capitalize():{len(self.validation_description)}}"
        else:
            description = super()._get_train_description(current_epoch)
        return f"{self.label} {description}" if self.label else description
