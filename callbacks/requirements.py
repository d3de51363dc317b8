"""The module and the data module of a run, as ``contracts.py`` describes them."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule, Trainer

from ..contracts import CLIPModule, UserMistake, ZeroShotData
from ..trainer.lookup import data_of


def zero_shot_data(trainer: Trainer) -> ZeroShotData:
    """Find the data module of a run.

    Args:
        trainer: The trainer of the run.

    Returns:
        Its data module.

    Raises:
        UserMistake: If the run has no data module, or one that names no classes and attacks.
    """
    data = data_of(trainer, ZeroShotData)
    if data is None:
        other = data_of(trainer, LightningDataModule)
        found = "no data module" if other is None else type(other).__name__
        raise UserMistake(
            f"the run has {found}: the callbacks that measure zero-shot accuracy need a data module with dataset_name, "
            "class_prompts and attacks, such as ImageTextDataModule"
        )
    return data


def clip_module(trainer: Trainer) -> CLIPModule:
    """Find the module of a run.

    Args:
        trainer: The trainer of the run.

    Returns:
        Its Lightning module.

    Raises:
        UserMistake: If the module has neither its preprocessing nor its defence.
    """
    module = trainer.lightning_module
    if not isinstance(module, CLIPModule):
        raise UserMistake(
            f"{type(module).__name__} has no preprocessing or no defence: subclass one of untrigger.lightning_modules"
        )
    return module
