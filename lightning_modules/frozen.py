"""The model that a defence started from, kept beside the one that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from .encoders import Encoder
from .precision import unit_length


class FrozenEncoder:
    """A copy of an encoder, in evaluation mode and without gradients.

    It is no ``nn.Module``: whatever holds it neither trains it nor has its weights among its own.

    Args:
        encoder: What is copied, on its device.
        weights: State dictionary of the copy; the encoder's own unless given.
    """

    def __init__(self, encoder: Encoder, weights: Mapping[str, Tensor] | None = None) -> None:
        self._encoder = deepcopy(encoder)
        if weights is not None:
            self._encoder.load_state_dict(weights)
        self._encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)`` of unit length, float32 at least."""
        # Under true precision, weights are of another than pictures, which here no trainer converts.
        return unit_length(self._encoder.encode_image(images.to(next(self._encoder.parameters()).dtype)))

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Captions ``(B, L)`` int64 to features ``(B, D)`` of unit length, float32 at least."""
        return unit_length(self._encoder.encode_text(tokens))

    def state_dict(self) -> dict[str, Tensor]:
        """The copy's weights, on the CPU."""
        return {name: part.cpu() for name, part in self._encoder.state_dict().items()}
