"""A picture of what the measured attacks do to the test pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ...contracts import Preprocessing, ZeroShotBatch
from ..requirements import clip_module, zero_shot_data
from .figures import DPI, trigger_gallery


class TriggerGallery(Callback):
    """Saves ``gallery.png`` in the run folder and, where TensorBoard is a logger, shows it there as ``gallery``.

    It is drawn once a run, from the first batch with pictures of the first evaluation, as the model gets it; not in the
    sanity check, and not where no attack is measured. With several ranks it is drawn by the first one, whose share of
    a small test set may have none.

    Args:
        pictures: Number of pictures, at least 1; they are spread over the batch.
    """

    def __init__(self, pictures: int = 8) -> None:
        super().__init__()
        self.pictures = pictures
        self._drawn = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Each run draws its own."""
        self._drawn = False

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the first batch that has pictures."""
        self._draw(trainer, batch)

    on_test_batch_start = on_validation_batch_start

    def _draw(self, trainer: Trainer, batch: ZeroShotBatch) -> None:
        rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        if self._drawn or trainer.sanity_checking or rehearsal or not trainer.is_global_zero:
            return
        count = len(batch["image"])
        if not count or not batch["triggered"]:
            return
        self._drawn = True
        preprocessing = clip_module(trainer).preprocessing
        chosen = torch.linspace(0, count - 1, min(self.pictures, count)).long().tolist()
        classnames = zero_shot_data(trainer).class_prompts.classnames
        figure = trigger_gallery(
            _pixels(batch["image"][chosen], preprocessing),
            {name: _pixels(images[chosen], preprocessing) for name, images in batch["triggered"].items()},
            [classnames[label] for label in batch["label"][chosen].tolist()],
        )
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / "gallery.png", dpi=DPI)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("gallery", figure, trainer.global_step, close=False)


def _pixels(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalised pictures as 8-bit ones again, exactly."""
    images = images.detach().float().cpu()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (images * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
