"""Small trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

Module = TypeVar("Module", bound=LightningModule)


def quiet_trainer(folder: Path, **arguments: Any) -> Trainer:
    """One on the CPU that prints and leaves nothing, unless it is told to."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return Trainer(**(defaults | arguments))


def recorded_losses(module: LightningModule) -> list[float]:
    """A list to which each training step from now on adds its loss."""
    losses: list[float] = []
    step = module.training_step

    def spy(batch: Any, batch_idx: int) -> Tensor:
        loss = step(batch, batch_idx)
        assert isinstance(loss, Tensor)
        losses.append(float(loss.detach()))
        return loss

    module.training_step = spy  # type: ignore[method-assign]
    return losses


def without_batch_norm(module: Module) -> Module:
    """The same module, whose features of a pair do not depend on the rest of the batch."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return module
