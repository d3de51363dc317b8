"""Subspace Detection: the distance of a picture to variants of the predicted text."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...contracts import UserMistake
from .base import ClassTexts, FrozenCLIP, PictureDetector

_VARIANTS, _AUGMENTED, _SAMPLES, _COMPONENTS, _TRIALS = 9, 90, 15, 3, 128
_VARIANCE, _ETA, _COSINES = 0.95, 1e-3, (0.85, 1.0)
"""The numbers that are known of the method; see ``SubspaceDetection``."""


class SubspaceDetection(PictureDetector):
    """The distance of a picture to the region that variants of its predicted text point to.

    Subspace Detection (OpenReview Kpij6oOnJl, ICLR 2026): a clean picture matches a text and everything that says the
    same (deeply), a triggered one the target's text alone (shallowly). For the predicted class

    1. the features of its text and of ``v`` variants span a subspace (principal components with 95 % of the variance);
    2. 90 points are drawn in it, from each variant away from the original, ``p + U(0, 1) (p - o)``, of which those are
       taken whose cosine with the original's feature is .85 to 1 times the variant's own;
    3. 15 samples are drawn about their mean, ``mean + 0.001 * deviations^T N(0, I)``, out of three such sets;
    4. the score is the mean squared distance of the picture's feature to the samples.

    Source: the abstract, and the numbers as a re-implementation has them (jsrdcht/SSL-Backdoor,
    ``subspace_detection/detector.py`` at 80236af); the paper itself was not at hand. Deviations: the variants are the
    class in up to nine other templates, where theirs are two typefaces, a translation and six descriptions by a
    language model. The threshold is conformal; theirs is the highest of 200 clean pictures.

    Args:
        model: Model under test.
        texts: The classes and the templates; the first is the text itself, the others are variants of it.
        seed: Seed of all random draws.

    Raises:
        UserMistake: If there are no variants.
    """

    name = "subspace"

    def __init__(self, model: FrozenCLIP, texts: ClassTexts, seed: int = 0) -> None:
        super().__init__(model, texts)
        templates = texts.templates[: _VARIANTS + 1]
        if len(templates) < 2:
            raise UserMistake("Subspace Detection compares a text with variants of it: give at least two templates")
        features = torch.stack([model.texts(texts.filled(template)) for template in templates]).transpose(0, 1)
        generator = torch.Generator().manual_seed(seed)
        regions = [region_of_interest(of_class.cpu(), generator) for of_class in features]
        self.classes, self.regions = model.classes(texts), torch.stack(regions).to(model.device)

    def score(self, pictures: Tensor, features: Tensor) -> Tensor:
        """See ``PictureDetector``: at least 0."""
        regions = self.regions[self.model.predicted(features, self.classes)]
        return (features[:, None] - regions).square().sum(dim=2).mean(dim=1)


def region_of_interest(texts: Tensor, generator: torch.Generator) -> Tensor:
    """Samples of the region that variants of a text point to.

    Args:
        texts: Features of the text and of its v variants, ``(1 + v, D)``, of unit length, on the CPU.
        generator: What is drawn comes from it.

    Returns:
        ``(15, D)``.
    """
    mean = texts.mean(dim=0)
    centred = texts - mean
    _, spreads, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = spreads.square()
    if float(variances.sum()) <= torch.finfo(texts.dtype).eps:
        return mean.expand(_SAMPLES, -1)
    kept = int((variances.cumsum(0) / variances.sum() < _VARIANCE).sum()) + 1
    basis = directions[:kept]
    points = centred @ basis.T
    original, variants = points[0], points[1:]
    repeated = variants.repeat_interleave(-(-_AUGMENTED // len(variants)), dim=0)[:_AUGMENTED]
    usual = functional.cosine_similarity(texts[1:], texts[:1])
    usual = usual.repeat_interleave(-(-_AUGMENTED // len(variants)), dim=0)[:_AUGMENTED].clamp(min=1e-8)
    sets = []
    for _ in range(_COMPONENTS):
        away = repeated + torch.rand(_TRIALS, len(repeated), 1, generator=generator) * (repeated - original)
        ratios = functional.cosine_similarity(mean + away @ basis, texts[0], dim=2) / usual
        taken = ((ratios > _COSINES[0]) & (ratios < _COSINES[1])).float()
        # The first that is within the bounds; the last, where none is.
        first = torch.where(taken.any(dim=0), taken.argmax(dim=0), _TRIALS - 1)
        sets.append(torch.cat([variants, away[first, torch.arange(len(repeated))]]))
    drawn = []
    for index in torch.randint(_COMPONENTS, (_SAMPLES,), generator=generator).tolist():
        centre = sets[index].mean(dim=0)
        deviations = sets[index] - centre
        drawn.append(centre + _ETA * deviations.T @ torch.randn(len(deviations), generator=generator))
    samples: Tensor = mean + torch.stack(drawn) @ basis
    return samples
