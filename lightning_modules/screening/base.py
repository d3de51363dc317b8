"""The base class of detectors of triggered pictures, and the frozen model that they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..encoders.base import Encoder
from ..precision import similarities, unit_length

_BLOCK = 256
"""Texts that are encoded at once."""


class ClassTexts(NamedTuple):
    """The classes among which pictures are classified."""

    classnames: Sequence[str]
    """C names."""
    templates: Sequence[str]
    """Captions in which ``{c}`` stands for the name of a class."""

    def filled(self, template: str) -> list[str]:
        """A caption for each class."""
        return [template.replace("{c}", name) for name in self.classnames]


class FrozenCLIP:
    """A CLIP model that encodes pictures and texts without gradients.

    Args:
        encoder: Encoder in evaluation mode, on the device that it runs on.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.device = encoder, encoder.logit_scale.device

    def normalised(self, pictures: Tensor) -> Tensor:
        """Normalise pictures ``(B, 3, S, S)`` uint8 for the encoder."""
        return self.encoder.normalised(pictures)

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """Encode normalised pictures ``(B, 3, S, S)`` to features ``(B, D)`` of unit length."""
        return unit_length(self.encoder.encode_image(pictures))

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """Encode N captions to features ``(N, D)`` of unit length."""
        tokens = torch.split(self.encoder.tokenizer(captions), _BLOCK)
        return torch.cat([unit_length(self.encoder.encode_text(block.to(self.device))) for block in tokens])

    def classes(self, texts: ClassTexts) -> Tensor:
        """Average the features of each class's captions and normalise the mean: ``(C, D)``."""
        sums = torch.stack([self.texts(texts.filled(template)) for template in texts.templates])
        return unit_length(sums.mean(dim=0))

    def predicted(self, features: Tensor, classes: Tensor) -> Tensor:
        """Classify features ``(B, D)`` by the most similar class: indices ``(B,)`` int64."""
        return similarities(features, classes).argmax(dim=1)


class PictureDetector(ABC):
    """Scores how suspicious pictures are, without ground truth. A subclass sets ``name`` and writes `score`.

    Args:
        model: Model under test.
        texts: The classes, at least ``fewest_classes``, and the templates; None where there are none.
    """

    name: ClassVar[str]
    """Name of the detector's columns in the table."""

    fewest_classes: ClassVar[int] = 1
    """How many classes it takes at least; 0 where it asks none."""

    def __init__(self, model: FrozenCLIP, texts: ClassTexts | None = None) -> None:
        self.model, self.texts = model, texts

    @abstractmethod
    def score(self, pictures: Tensor, features: Tensor) -> Tensor:
        """Score a batch of pictures.

        Args:
            pictures: Normalised pictures, ``(B, 3, S, S)``.
            features: Features of the pictures, ``(B, D)``, of unit length.

        Returns:
            ``(B,)``, the more suspicious the higher. The score of a picture does not depend on the others.
        """
