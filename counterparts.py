"""The one place where a run's data module is asked for: by modules and callbacks, as ``contracts.py`` describes it."""

from __future__ import annotations

from typing import TypeVar

from lightning.pytorch import Trainer

T = TypeVar("T")


def data_of(trainer: Trainer, kind: type[T]) -> T | None:
    """Find the data module of a run.

    Its members are looked up and not evaluated: a property that raises before ``setup`` raises where it is asked for.

    Args:
        trainer: The trainer of the run.
        kind: What it has to answer: a Protocol of ``contracts.py``.

    Returns:
        The data module; None where the run has none, or one of another kind.
    """
    data = getattr(trainer, "datamodule", None)  # Lightning sets it where one is given
    return data if isinstance(data, kind) else None
