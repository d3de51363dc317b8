"""The base class of UBT's phases that push pairs from a word."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...contracts import ImageTextBatch, UserMistake
from ..frozen import FrozenEncoder
from ..losses import ForgettingLoss, RetentionLoss
from ..phased import Phase
from ..precision import similarities
from ..words.words import has_words
from .findings import Indices, sample
from .state import UBTState
from .transplants import Carrier, partners, transplant

_UNRELATED = 1024
"""Held pairs from which the similarity of unrelated ones is estimated."""


class UnlearnWeights(NamedTuple):
    """How the losses of a step are weighed."""

    hold: float
    """Of the cosine distance of benign pictures' features to what they were."""
    repair: float
    """Of the same for benign pictures that carry something of the suspects'; 0 is the paper's method."""
    forget: float
    """Of ``ForgettingLoss``."""


class Pushed(NamedTuple):
    """The pairs that are pushed, and from which words."""

    pairs: Indices
    """``(P,)``, their indices."""
    words: Indices
    """``(P,)``, for each the index of its word."""


class Unlearn(Phase[UBTState]):
    """Pushes pictures away from a word, holds benign ones, and repairs: what suspects carry is to mean nothing.

    With f the image tower, f0 the same before, suspects a with the text t of their word alone, benign pictures b, and
    transplants b' of what a suspect carries onto a benign picture without its word, the loss of a step is
    ``hold (1 - cos(f(b), f0(b))) + repair (1 - cos(f(b'), f0(b))) + forget mean(max(f(a) t - u, 0))`` with u the mean
    similarity of unrelated pictures with t. Pushing says where a picture must not be; repairing says where it belongs.

    The image tower alone moves: with both, the text tower absorbs the forgetting, and full prompts keep the backdoor.
    Batch-norm statistics stay what they were, so that all kinds of pictures may share a batch.

    Args:
        name: See ``Phase``.
        epochs: Epochs, of ``steps`` each.
        steps: Steps of an epoch.
        lr: Peak learning rate: a warm-up of a sixteenth of the steps, then a cosine to zero.
        batch_size: Pushed pairs of a step of each rank, and transplants.
        weights: Weights of the losses.
        carriers: The ways of a transplant.
    """

    learning = ("image",)

    def __init__(
        self,
        name: str,
        epochs: int,
        steps: int,
        lr: float,
        batch_size: int,
        weights: UnlearnWeights,
        carriers: Sequence[Carrier],
    ) -> None:
        super().__init__(name, epochs, lr)
        self.steps, self.batch_size, self.weights, self.carriers = steps, batch_size, weights, carriers
        self.forgetting, self.retention = ForgettingLoss(), RetentionLoss()
        self._before: FrozenEncoder | None = None
        self._seed = (0, 0, 0)

    @abstractmethod
    def pushed(self, ubt: UBTState) -> Pushed:
        """The pairs to push, the same on all ranks."""

    @abstractmethod
    def held(self, ubt: UBTState) -> Indices:
        """The pairs to hold."""

    def learning_rate(self, module: UBTState, step: int) -> float:
        """A cosine over the steps of the phase, times a warm-up of the first sixteenth of them."""
        total = self.epochs * self.steps
        return self.lr * min(1.0, 16 * (step + 1) / total) * (1 + math.cos(math.pi * step / total)) / 2

    def select(self, ubt: UBTState, epoch: int) -> None:
        """Pairs that are held, for the steps of an epoch; others in each.

        Raises:
            UserMistake: If they do not fill a batch.
        """
        held, needed = self.held(ubt), ubt.data.global_batch_size
        if len(held) < needed:
            raise UserMistake(
                f"UBT: {len(held)} pairs can be held where they are, too few to fill a batch of {needed}: nearly all "
                "captions have a suspicious word. Give more data, or smaller batches"
            )
        self._seed = (list(ubt.phases).index(self.name), ubt.visit, epoch)
        ubt.data.select(ubt.findings.keys_of(sample(held, self.steps * needed, *self._seed)))

    def prepare(self, ubt: UBTState) -> None:
        """Keep the pushed pictures at hand, the texts of their words, and the model before."""
        findings = ubt.findings
        self._before = before = FrozenEncoder(ubt.encoder, ubt.answer)
        pairs, words = self.pushed(ubt)
        if not len(pairs):
            raise UserMistake(
                "UBT: no word that similarities depend on has the eight pairs that a probe needs: give more of "
                "the data that the model was trained on"
            )
        self._pictures = ubt.data.pictures(findings.keys_of(pairs))
        self._word_of = torch.from_numpy(words).to(ubt.device)
        self._table = findings.words.table().to(ubt.device)
        self._texts = ubt.word_texts()
        others = sample(self.held(ubt), _UNRELATED, 1)
        keys = findings.keys_of(others)
        pictures = ubt.data.pictures(keys)
        tokens = ubt.preprocessing.tokenize(ubt.data.captions(keys)).to(ubt.device)
        with ubt.evaluating():
            features = torch.cat([before.encode_image(ubt.normalised(part)) for part in torch.split(pictures, 256)])
            similarity = similarities(features, self._texts)
            unrelated = ~has_words(tokens, self._table)
            self._unrelated = (similarity * unrelated).sum(dim=0) / unrelated.sum(dim=0).clamp(min=1)

    def step(self, ubt: UBTState, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Hold benign pairs, repair transplants, forget pushed ones."""
        images, count = batch["image"], len(batch["key"])
        chosen = self._turn(ubt, batch_idx)
        suspects, words = (
            ubt.normalised(self._pictures[chosen]),
            self._word_of[chosen.to(ubt.device, non_blocking=True)],
        )
        assert self._before is not None, "prepare comes first"
        before = self._before.encode_image(images)
        shown = [images, suspects]
        if self.weights.repair:
            generator = self._generator(ubt, batch_idx)
            of = partners(has_words(batch["tokens"], self._table[words]).T, generator)
            shown.append(transplant(images[of], suspects, self.carriers, generator))
        features = ubt.encode_image(torch.cat(shown))
        benign, pushed, carried = torch.split(features, [count, len(chosen), len(features) - count - len(chosen)])
        parts = {
            "hold": self.retention(benign, before),
            "forget": self.forgetting(pushed, self._texts[words], self._unrelated[words]),
        }
        if self.weights.repair:
            parts["repair"] = self.retention(carried, before[of])
        ubt.log_parts(**parts)
        return torch.stack([getattr(self.weights, name) * part for name, part in parts.items()]).sum()

    def _generator(self, ubt: UBTState, batch_idx: int) -> torch.Generator:
        """The random numbers of a step of this rank: the same after a restart."""
        seed = np.random.SeedSequence((*self._seed, batch_idx, ubt.global_rank)).generate_state(1)
        return torch.Generator().manual_seed(int(seed[0]))

    def _turn(self, ubt: UBTState, batch_idx: int) -> Tensor:
        """Whose turn it is: all pushed pairs one after the other, in an order drawn for the epoch."""
        count = len(self._pictures)
        size = min(self.batch_size, count)
        order = torch.from_numpy(np.random.default_rng(self._seed).permutation(count))
        start = (batch_idx * ubt.trainer.world_size + ubt.global_rank) * size
        return order[torch.arange(start, start + size) % count]
