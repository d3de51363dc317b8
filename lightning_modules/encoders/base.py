"""The interface that every encoder family implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import Preprocessing
from .visual_prompts import TokenBlocks


class Encoder(nn.Module, ABC):
    """A pair of image and text towers with their tokeniser, input geometry and temperature.

    Features are returned as the towers make them, not normalised.

    Attributes:
        image_size: Side of the square input, in pixels.
        mean: Mean per channel, for pictures in [0, 1].
        std: Standard deviation per channel, for pictures in [0, 1].
        context_length: Number of tokens of a caption, start and end included.
        tokenizer: N captions to ``(N, context_length)`` int64 tokens; picklable; over-long captions are cut so that
            the end token stays.
        logit_scale: Scalar parameter, the logarithm of the inverse temperature.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    context_length: int
    tokenizer: Callable[[Sequence[str]], Tensor]
    logit_scale: nn.Parameter
    takes_logit_bias = False
    """Whether a model of this kind can have one."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures and captions are to be prepared for this encoder."""
        return Preprocessing(self.image_size, self.mean, self.std, self.tokenizer)

    @property
    def traits(self) -> Mapping[str, Any]:
        """What a file may say of the model too, by what it is of: see ``traits.py``."""
        return {
            "image size": self.image_size,
            "context length": self.context_length,
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, for pictures in [0, 1]: ``(3, 1, 1)`` each, on the device."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32).to(self.logit_scale.device, non_blocking=True)
            for values in (self.mean, self.std)
        )
        return mean.view(3, 1, 1), std.view(3, 1, 1)

    def normalised(self, pictures: Tensor) -> Tensor:
        """Normalise pictures ``(N, 3, S, S)`` uint8: float32, the same shape, on the encoder's device."""
        mean, std = self.scales
        return (pictures.to(mean.device, non_blocking=True).float() / 255 - mean) / std

    @property
    @abstractmethod
    def image_tower(self) -> nn.Module:
        """The submodule that holds all and only the parameters and buffers that ``encode_image`` uses."""

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Width D of the joint embedding space."""

    @property
    def token_blocks(self) -> TokenBlocks | None:
        """The blocks of the image tower, where it is a transformer whose class token is what is embedded.

        They can have visual prompts, which ``load_weights`` gives them where a file has some.
        """
        return None

    @property
    def logit_bias(self) -> Tensor | None:
        """Scalar that a sigmoid loss adds to all logits; None where the model has none. It is never trained here."""
        return None

    def set_logit_bias(self, bias: Tensor | None) -> None:
        """Give the model the bias that its file has, or none where the file has none.

        Args:
            bias: One number, only where ``takes_logit_bias``; None for none.
        """

    @abstractmethod
    def encode_image(self, images: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            images: Images, ``(B, 3, image_size, image_size)``, normalised with ``mean`` and ``std``.

        Returns:
            ``(B, D)``, not normalised.
        """

    @abstractmethod
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed captions.

        Args:
            tokens: Tokens, ``(B, L)`` int64, as ``tokenizer`` makes them.

        Returns:
            ``(B, D)``, not normalised.
        """

    def prepare_as_in(self, folder: Path) -> None:  # most families' names say it all
        """Adopt the preprocessing that a folder with weights names, where the architecture does not say.

        Args:
            folder: The folder that the weights came from.

        Raises:
            UserMistake: If it says what cannot be.
        """
