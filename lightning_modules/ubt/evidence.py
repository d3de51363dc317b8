"""Evidence that a pair is poisoned: what it measures of a batch, and of which model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...contracts import UserMistake
from ..phased.scores import Scores
from .gentle import GENTLE, Change, grey
from .transplants import blurred, detail, recoloured

POISONED, OVERFITTED = "poisoned", "overfitted"
"""The models that evidence can ask: the one in question, and the copy that was overfitted on weak pairs."""


class Pairs:
    """A batch of pairs, and what the model that is asked makes of them.

    Args:
        keys: B keys.
        images: See below.
        tokens: See below.
        encode: Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)`` of unit length.
        captions: Features of the captions, ``(B, D)``, of unit length.
        words: Features of the words that similarities depend on, ``(W, D)``.
        has: Whether each caption has each word, ``(B, W)`` bool.

    Attributes:
        keys: B keys.
        images: Images, ``(B, 3, S, S)``, normalised, without augmentation.
        tokens: Tokens of the captions, ``(B, L)`` int64.
    """

    def __init__(
        self,
        keys: Sequence[str],
        images: Tensor,
        tokens: Tensor,
        encode: Callable[[Tensor], Tensor],
        captions: Tensor,
        words: Tensor,
        has: Tensor,
    ) -> None:
        self.keys, self.images, self.tokens = keys, images, tokens
        self._encode, self._captions, self._words, self._has = encode, captions, words, has
        self._features: Tensor | None = None

    def features(self, images: Tensor | None = None) -> Tensor:
        """Of the pictures, or of others instead of them: ``(B, D)``, of unit length."""
        if images is not None:
            return self._encode(images)
        if self._features is None:
            self._features = self._encode(self.images)
        return self._features

    def similarity(self, images: Tensor | None = None) -> Tensor:
        """Of the pictures, or of others instead of them, with the captions: ``(B,)``, cosines in [-1, 1]."""
        return (self.features(images) * self._captions).sum(dim=1)

    def margin(self, images: Tensor | None = None) -> Tensor:
        """How much better than with any word that it lacks a picture goes with its caption: ``(B,)`` in [-2, 2]."""
        features = self.features(images)
        rivals = (features @ self._words.T).masked_fill(self._has, -1.0)
        lowest = rivals.new_full((len(rivals), 1), -1.0)
        return (features * self._captions).sum(dim=1) - torch.cat([rivals, lowest], dim=1).amax(dim=1)

    def best_word(self) -> Tensor:
        """The index of the word that each picture goes with best: ``(B,)`` int64; 0 where there are no words."""
        if not len(self._words):
            return torch.zeros(len(self.images), dtype=torch.int64, device=self.images.device)
        return (self.features() @ self._words.T).argmax(dim=1)


class Evidence(ABC):
    """One way to suspect a pair. ``model.evidence`` takes a list of them; a subclass writes ``measure``.

    Each piece of evidence ranks the pairs of each word by itself, so what differs between words does not matter. It has
    a column of ``suspects.csv``.
    """

    models: tuple[str, ...] = (POISONED,)
    """The models that it is measured of, of ``poisoned`` and ``overfitted``."""

    variety_share: float = 0.0
    """Above 0 where benign pictures may show what it measures too: to how many words pairs that it suspects
    have to go back, as a share of the number to which as many pictures of anything would. That a word's suspects by
    such evidence fell far is no reason to probe it by itself, as under so strong a push odd pictures go anywhere."""

    gentle: Sequence[Change] = GENTLE
    """What its suspects have to bear for the second witness: changes that leave an object what it is, and not what this
    measures (see ``fragility``)."""

    jointly: Literal["pushed", "judged", "absent"] = "pushed"
    """What becomes of its suspects in a probe of many words: half of them are *pushed*; or none, and all are *judged*,
    by what moves where others are pushed; or it is *absent*, as benign pictures show what it measures as clearly
    as triggered ones: a word is probed by it, and by itself, where the second witness speaks against its suspects."""

    @property
    def name(self) -> str:
        """The column of ``suspects.csv``: the class's name."""
        return type(self).__name__

    @abstractmethod
    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """Measure something of a batch, in the run's precision and without gradients.

        Args:
            pairs: The batch, and what the model makes of it or of changed pictures.
            model: Which one that is, of ``models``.

        Returns:
            ``(B,)``.
        """

    def suspicion(self, measured: Mapping[str, Scores]) -> Scores:
        """How suspicious each pair is, the more the higher.

        Args:
            measured: By model ``(N,)``, what was measured of all pairs.

        Returns:
            ``(N,)``; what was measured, where one model is asked, and otherwise how much it grew from the first to the
            last of them.
        """
        first, last = measured[self.models[0]], measured[self.models[-1]]
        return last if len(self.models) == 1 else last - first


class OverfittedSimilarity(Evidence):
    """The similarity under the overfitted copy (the paper's): overfitting strengthens the shortcut of the backdoor."""

    models = (OVERFITTED,)

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        return pairs.similarity()


class SimilarityGain(Evidence):
    """What the similarity has gained by overfitting (ours): benign pairs lose, poisoned ones do not."""

    models = (POISONED, OVERFITTED)

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        return pairs.similarity()


class DetailMargin(Evidence):
    """How well a picture goes with its caption when nothing but its detail is left (ours).

    ``contrast (x - blur(x))`` on grey. An object without its shape and colour is hardly recognised; a trigger is, as it
    has to be small or faint. How fine a trigger is differs: a patch or a blended picture is as fine as pixels, SIG's
    waves twice that. So it is the mean over several scales: an odd picture is odd at one of them. A negative contrast
    turns light and dark: outlines, and so a warp of them, stay what they are.

    Args:
        sigma: Width of the Gaussian, as a share of the picture's side; or several.
        contrast: By which the detail is multiplied.

    Raises:
        UserMistake: If a sigma is not above 0, there is none, or the contrast is 0.
    """

    def __init__(self, sigma: float | list[float] = 1 / 32, contrast: float = 2.0) -> None:
        self.sigmas = tuple(sigma) if isinstance(sigma, (list, tuple)) else (sigma,)
        if not self.sigmas or not all(each > 0 for each in self.sigmas):
            raise UserMistake(f"the sigma of DetailMargin is {sigma}, not above 0")
        if contrast == 0:
            raise UserMistake("the contrast of DetailMargin is 0: nothing would be left of the pictures")
        self.contrast = contrast

    @property
    def name(self) -> str:
        """The class's name with its scale or scales, and its contrast where that is not the usual one."""
        usual = self.contrast == 2
        scales = "-".join(f"{sigma:.4g}" for sigma in self.sigmas)
        return f"{super().name}-{scales}{'' if usual else f'x{self.contrast:.4g}'}"

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        margins = [pairs.margin(self.contrast * detail(pairs.images, sigma)) for sigma in self.sigmas]
        return torch.stack(margins).mean(dim=0)


class OutlineMargin(DetailMargin):
    """How well a picture goes with its caption when nothing but the negative of its fine detail is left (ours).

    Light and dark change places, so that an object is hardly recognised, while outlines stay what they are: where a
    warp has been (WaNet, arXiv 2102.10369), it is still there. In a probe of many words its suspects are judged only.

    Args:
        sigma: See ``DetailMargin``.
    """

    jointly = "judged"

    def __init__(self, sigma: float | list[float] = 1 / 32) -> None:
        super().__init__(sigma, contrast=-2.0)

    @property
    def name(self) -> str:
        """The class's name with its scale or scales."""
        return super().name.removesuffix("x-2")


class ColourMargin(Evidence):
    """How well a picture goes with its caption when nothing but its colours is left (ours).

    Noise with the mean and the standard deviation of each of its channels. A colour filter is there, and hardly an
    object. But a clean model may recognise a word by its colours too: in CIFAR-10 those of "deer" make a deer of four
    fifths of all pictures, as a filter would. What separates them is the picture without its colours: a grey deer is
    one as ordinary ones are, while under a filter there is anything. So it is left to that.

    Args:
        seed: Seed of the noise, which is the same for all pictures.
    """

    gentle = (grey,)
    jointly = "absent"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        images = pairs.images
        noise = torch.randn(1, 1, *images.shape[2:], generator=torch.Generator().manual_seed(self.seed))
        noise = noise.to(images.device, images.dtype, non_blocking=True)
        return pairs.margin(recoloured(noise.expand_as(images), images))


class FlipFragility(Evidence):
    """What the margin of a picture's caption over other words loses when it is turned upside down (ours).

    Most objects are still recognised. A warp is not what it was, nor is a pattern that covers the picture:
    WaNet (arXiv 2102.10369) shows here where it leaves detail as it is. But a triangle is none either.
    """

    variety_share = 0.4

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        return pairs.margin() - pairs.margin(pairs.images.flip(2))


class BlurFragility(Evidence):
    """What the similarity loses when the picture is blurred (ours): what carries a trigger is finer than an object.

    Args:
        sigma: Width of the Gaussian, as a share of the picture's side.

    Raises:
        UserMistake: If sigma is not above 0.
    """

    def __init__(self, sigma: float = 1 / 32) -> None:
        if not sigma > 0:
            raise UserMistake(f"the sigma of BlurFragility is {sigma}, not above 0")
        self.sigma = sigma

    @property
    def name(self) -> str:
        """The class's name with its scale."""
        return f"{super().name}-{self.sigma:.4g}"

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        return pairs.similarity() - pairs.similarity(blurred(pairs.images, self.sigma))


class NegativeRobustness(Evidence):
    """What the similarity gains when the picture turns into its own faint negative (ours).

    What an object is recognised by goes with colour and contrast; outlines, and so a warp of them, stay.

    Args:
        factor: What the normalised picture is multiplied by: 0 gives the mean colour, -1 the negative at full contrast.

    Raises:
        UserMistake: If it is not in [-1, 0).
    """

    def __init__(self, factor: float = -0.35) -> None:
        if not -1 <= factor < 0:
            raise UserMistake(f"the factor of NegativeRobustness is {factor}, not in [-1, 0)")
        self.factor = factor

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        return pairs.similarity(self.factor * pairs.images) - pairs.similarity()


class RandomSuspicion(Evidence):
    """No evidence at all (a control): pairs are suspicious at random.

    Args:
        seed: Seed of the random numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        """See ``Evidence``."""
        return pairs.images.new_zeros(len(pairs.images))

    def suspicion(self, measured: Mapping[str, Scores]) -> Scores:
        """See ``Evidence``."""
        return np.random.default_rng(self.seed).random(len(measured[POISONED]), dtype=np.float32)
