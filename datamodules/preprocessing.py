"""Find the preprocessing of a run's model."""

from __future__ import annotations

from lightning.pytorch import Trainer

from ..contracts import CLIPModule, Preprocessing, UserMistake


def asked_preprocessing(trainer: Trainer | None, given: Preprocessing | None) -> Preprocessing:
    """What the module of a run asks for; without a run, what was given.

    Raises:
        UserMistake: If the module does not say, or nothing was given.
    """
    if trainer is None:
        if given is None:
            raise UserMistake(
                "a data module without a trainer has to be told of the model: set data.preprocessing = "
                "encoder.preprocessing before setup()"
            )
        return given
    module = trainer.lightning_module
    if not isinstance(module, CLIPModule):
        raise UserMistake(f"{type(module).__name__} has no preprocessing and defence: it is no CLIPModule")
    return module.preprocessing
