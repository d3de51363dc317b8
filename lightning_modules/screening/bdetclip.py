"""BDetCLIP: how little a picture's similarity to the classes changes when their texts are spoilt."""

from __future__ import annotations

import torch
from torch import Tensor

from ...contracts import UserMistake
from ..precision import similarities, unit_length
from .base import ClassTexts, FrozenCLIP, PictureDetector

_UNRELATED = (
    "the kettle sang while the last train left the station",
    "seven letters were lost between two wet winters",
    "nobody had counted the stairs of the old library",
    "a violin was tuned behind the closed green door",
    "the recipe asks for salt, patience and a heavy pan",
    "they voted on the colour of the village bell",
    "rain fell upwards in the dream that she described",
    "an honest clock forgives the hurry of its owner",
    "the third chapter explains how glass remembers heat",
    "his shadow signed the contract an hour too early",
    "two rivers argued about the shortest way to sea",
    "the museum closes when the mathematics gets tired",
    "bread was traded for a map of missing streets",
    "her grandmother whistled the tax law by heart",
    "every second lamp dreamt of becoming a lighthouse",
    "the choir forgot the words but kept the breath",
)
"""Sentences that say nothing of any class."""


class BDetCLIP(PictureDetector):
    """How little a picture's similarity to the classes changes when their texts are spoilt.

    Niu et al. (arXiv 2405.15269): texts of a class that describe it (benign) and texts in which its name stands beside
    something unrelated (malignant) differ to the model, and so does the similarity of a clean picture to them. A
    triggered picture is tied to the name and hardly sees the difference. The score is less ``sum_c (cos(f, b_c) -
    cos(f, m_c))`` for the mean features ``b_c`` and ``m_c`` of the two kinds of texts of class c.

    Deviations: the texts are templates in place of a language model's. Benign is the class in each template, malignant
    the same followed by an unrelated sentence of ours; theirs describes a class in seven sentences of GPT-4's. The
    threshold is conformal (``conformal_p``); theirs is the lowest of 200 clean pictures.

    Args:
        model: Model under test.
        texts: The classes and the templates.

    Raises:
        UserMistake: If there are fewer than two classes.
    """

    name = "bdetclip"
    fewest_classes = 2

    def __init__(self, model: FrozenCLIP, texts: ClassTexts) -> None:
        super().__init__(model, texts)
        if len(texts.classnames) < self.fewest_classes:
            raise UserMistake("BDetCLIP compares classes: name at least two")
        benign, malignant = [], []
        for index, template in enumerate(texts.templates):
            benign.append(model.texts(texts.filled(template)))
            spoilt = f"{template.rstrip('.')}, {_UNRELATED[index % len(_UNRELATED)]}"
            malignant.append(model.texts(texts.filled(spoilt)))
        means = (unit_length(torch.stack(texts).mean(dim=0)) for texts in (benign, malignant))
        self.difference = next(means) - next(means)
        """``(C, D)``, what the mean text of each class loses."""

    def score(self, pictures: Tensor, features: Tensor) -> Tensor:
        """See ``PictureDetector``: in [-2C, 2C]."""
        return -similarities(features, self.difference).sum(dim=1)
