"""Zero-shot accuracy on clean pictures."""

from __future__ import annotations

from torch import Tensor

from ...contracts import ClassLogits, ZeroShotData
from .rate import Rate
from .zero_shot_measure import ZeroShotMeasure, predictions


class CleanAccuracy(ZeroShotMeasure):
    """Zero-shot top-1 accuracy over all clean test pictures (CA).

    Logs:
        ``val/clean_accuracy`` or ``test/clean_accuracy``, in [0, 1]. Where the module has a head of its own, the head's
        too, as ``val/head_clean_accuracy``.
    """

    def __init__(self) -> None:
        super().__init__(prog_bar=("clean_accuracy",))

    def rates(self, data: ZeroShotData) -> list[str]:
        """One rate, whatever is measured beside it."""
        return ["clean_accuracy"]

    def count(self, label: Tensor, outputs: ClassLogits, rates: dict[str, Rate]) -> None:
        """Count the pictures that are classified as their label."""
        rates["clean_accuracy"].update(predictions(outputs["logits"]) == label)
