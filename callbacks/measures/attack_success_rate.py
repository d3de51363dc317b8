"""How often a trigger moves a picture into the target class."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contracts import Attack, ClassLogits, ZeroShotBatch, ZeroShotData, ZeroShotOutputs
from ...run_folder.results import ATTACK_MEASURES
from .rate import Rate
from .zero_shot_measure import ZeroShotMeasure, predictions

_MEASURES = (*ATTACK_MEASURES, "non_target_triggered_accuracy")


class AttackSuccessRate(ZeroShotMeasure):
    """What each measured attack does to the test pictures.

    - Attack success rate (ASR): share of the triggered pictures *whose label is not the target* that are classified as
      the target. Target-class pictures are in neither the numerator nor the denominator, unlike in CleanCLIP's linear
      probe (arXiv 2303.03323, official code), which keeps them in the denominator.
    - Clean target rate: share of those same pictures that is classified as the target without the trigger, the floor
      that no defence can be blamed for.
    - Triggered accuracy: zero-shot top-1 over all test pictures under the trigger, against their true labels.
    - Non-target triggered accuracy: the same over the pictures whose label is not the target. A model that calls all
      that bears the trigger the target is right about the target's own pictures, so these are left out where it is
      asked whether the model sees again what is there: as a share of what a never poisoned twin has, it is *recovered*.

    Where the trigger is a concept that pictures show by themselves, there is no picture with and without it: success
    and the accuracies are of the test pictures that show it, and the clean target rate is of those that do not.

    A control, such as one key alone of an attack with two, is measured likewise: its success is what must not be.

    Logs:
        ``val/attack_success_rate``, ``val/clean_target_rate``, ``val/triggered_accuracy`` and
        ``val/non_target_triggered_accuracy``, in [0, 1], with ``test/`` in ``test``. With several attacks, controls
        among them, these are means over those that are no controls, and each has its own, such as
        ``val/attack_success_rate/BadNet``. Nothing where no attack is measured. Where the module has a head of its own,
        the head's too, as ``val/head_attack_success_rate`` and so on.
    """

    def __init__(self) -> None:
        super().__init__(prog_bar=("attack_success_rate",))
        self._attacks: list[Attack] = []
        self._bears: dict[str, Tensor] = {}

    def rates(self, data: ZeroShotData) -> list[str]:
        """Four rates for each attack."""
        self._attacks = list(data.attacks)
        return [f"{measure}/{attack.name}" for measure in _MEASURES for attack in self._attacks]

    def see(self, batch: ZeroShotBatch, outputs: ZeroShotOutputs) -> None:
        """Count a batch, knowing which of its pictures trigger by themselves."""
        self._bears = batch.get("bears", {})
        super().see(batch, outputs)

    def count(self, label: Tensor, outputs: ClassLogits, rates: dict[str, Rate]) -> None:
        """Count a batch for each attack."""
        clean = predictions(outputs["logits"])
        for attack in self._attacks:
            name, target = attack.name, attack.target
            triggered, other = predictions(outputs["triggered_logits"][name]), label != target
            bears = self._bears.get(name)  # all do, where they are stamped
            with_it, without = (other, other) if bears is None else (other & bears, other & ~bears)
            rates[f"attack_success_rate/{name}"].update(triggered == target, with_it)
            rates[f"clean_target_rate/{name}"].update(clean == target, without)
            rates[f"triggered_accuracy/{name}"].update(triggered == label, bears)
            rates[f"non_target_triggered_accuracy/{name}"].update(triggered == label, with_it)

    def figures(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean over attacks and, where there are several, each of them."""
        counted = [attack.name for attack in self._attacks if attack.control_of is None]
        means = {
            measure: torch.stack([values[f"{measure}/{name}"] for name in counted]).mean() for measure in _MEASURES
        }
        return means if len(self._attacks) == 1 else means | values
