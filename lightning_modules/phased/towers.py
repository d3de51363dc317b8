"""Parameters by tower, so that one optimiser can move either."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..encoders.base import Encoder
from ..optimisation import decay_groups

TOWERS = ("image", "rest")
"""The image tower, and the text tower with the temperature."""


def tower_groups(encoder: Encoder, weight_decay: float) -> list[dict[str, Any]]:
    """Split an encoder's parameters by tower, and each tower's by whether they decay.

    Args:
        encoder: Whose parameters.
        weight_decay: As for ``decay_groups``.

    Returns:
        Parameter groups whose ``tower`` is ``image``, or ``rest`` for the text tower and the temperature.
    """
    image = {id(parameter) for parameter in encoder.image_tower.parameters()}
    towers = {
        "image": nn.ParameterList(part for part in encoder.parameters() if id(part) in image),
        "rest": nn.ParameterList(part for part in encoder.parameters() if id(part) not in image),
    }
    return [{**group, "tower": name} for name, part in towers.items() for group in decay_groups(part, weight_decay)]
