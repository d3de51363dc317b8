"""The field's detectors of poisoned pairs, side by side on one model and its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...contracts import DECISIONS, ImageTextBatch, Suspicion, UserMistake
from ...trainer.seed import run_seed
from ..isolation import Isolate, mean_by_key
from ..phased import Phase, PhasedCLIPModule, phase_table
from ..phased.rows import PassRows
from ..phased.scores import PassScores, Scores, aligned
from ..precision import similarities
from ..ranges import check_ranges
from ..ubt.evidence import POISONED, Evidence, Pairs
from ..ubt.module import usual_evidence
from ..words.sampled_words import words_of_sample
from ..words.words import Words, has_words
from .base import PairDetector, RankedPairs, asked_scores, check_detectors
from .usual import usual_detectors

LEARNT_FIRST = "learnt_first"


class PairDetectors(PhasedCLIPModule):
    """A CLIP whose training pairs are ranked by every detector that needs nothing but them; the model stays as it is.

    The columns, each the more suspicious the higher:

    - ``learnt_first``: ABL's (arXiv 2110.11571; for CLIP arXiv 2502.01385), less the mean loss of a pair under a fresh
      model that is trained with a trap: see ``ABL``.
    - those of each ``PairDetector``: similarity, SafeCLIP's mixture of it, local density, spectral signatures and
      activation clustering, unless others are named.
    - UBT's evidence, under its own names: what UBT ranks the pairs of each word by.

    Deviations: the two that were made for classes take for a class the pairs of the same word, of those on which
    similarities depend (found as UBT does, by masking tokens; no list of classes is needed), and a pair counts to that
    word of its caption with which its picture goes best. None of them is a verdict: how well each ranks is the business
    of ``BackdoorDetection``, which knows the truth where a manifest does.

    A run is no defence. It needs ``trainer.max_epochs=-1`` and ``trainer.reload_dataloaders_every_n_epochs=1``. Memory
    holds the features of all pictures, four bytes a number.

    Logs: ``pairdetectors/phase``, ``pairdetectors/seconds/PHASE``; ``train/loss`` and ``train/pair_loss`` of the
    trapped model.

    Args:
        isolation_epochs: Epochs of the trapped model of ABL; 0 leaves ``learnt_first`` out, and with it all training.
        isolation_lr: Its learning rate, after ``warmup_steps``.
        gamma: Where its trap is, as a share of the loss of chance, in (0, 1].
        detectors: What is asked of all pairs at once; `usual_detectors` unless given. They are asked about made-up
            pairs before anything is trained.
        evidence: UBT's; what UBT takes unless given.
        sampled_pairs: Pairs in which words are looked for.
        min_word_share: Least share of these that a word carries.
        seed: Seed of the trapped model's first weights, and of what detectors draw; the seed of ``seed_everything``
            unless given.

    Raises:
        UserMistake: If a parameter is out of range, two scores have the same name, evidence asks another model than
            this, or similarities depend on no word.
    """

    is_defence: ClassVar[bool | None] = False

    def __init__(
        self,
        *args: Any,
        isolation_epochs: int = 3,
        isolation_lr: float = 1e-3,
        gamma: float = 0.5,
        detectors: list[PairDetector] | None = None,
        evidence: list[Evidence] | None = None,
        sampled_pairs: int = 2048,
        min_word_share: float = 0.004,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_ranges(
            {"sampled_pairs": sampled_pairs},
            {"isolation_epochs": isolation_epochs, "isolation_lr": isolation_lr},
            {"gamma": gamma, "min_word_share": min_word_share},
        )
        for objects in ("evidence", "detectors"):  # they would make a checkpoint that is more than plain data
            self.hparams.pop(objects, None)
        self.evidence = usual_evidence() if evidence is None else evidence
        if copies := [piece.name for piece in self.evidence if piece.models != (POISONED,)]:
            raise UserMistake(f"model.evidence: {copies[0]} asks an overfitted copy, which only UBT makes")
        self.detectors, self.seed = usual_detectors() if detectors is None else detectors, run_seed(seed)
        check_detectors(
            self.detectors, [LEARNT_FIRST, *(piece.name for piece in self.evidence)], self.encoder.embedding_dim
        )
        embed = Embed(sampled_pairs, min_word_share)
        trapped = [Isolate(isolation_epochs, isolation_lr, gamma, self.seed, self.isolate)] if isolation_epochs else []
        self.phases = phase_table(*trapped, embed)
        self._losses: tuple[list[str], Scores] | None = None
        self.keys: list[str] = []
        """The training pairs, once they were ranked."""
        self.scores: dict[str, Scores] = {}
        """By the name of a detector ``(N,)``, the more suspicious the higher."""

    @property
    def suspicion(self) -> Suspicion | None:
        """Every score, and no decision; None before they are known."""
        if not self.keys:
            return None
        benign = np.full(len(self.keys), DECISIONS.index("benign"), dtype=np.int8)
        return Suspicion(self.keys, self.scores, benign, (), "embed")

    def account(self) -> str:
        """How many were ranked."""
        return f"{len(self.keys):,} pairs ranked by {len(self.scores)} detectors" if self.keys else ""

    def isolate(self, keys: list[str], losses: Scores) -> str:
        """Keep what the trapped model was asked for.

        Args:
            keys: Keys of pairs, each as often as it was seen.
            losses: As many.

        Returns:
            The phase that comes next.
        """
        self._losses = mean_by_key(keys, losses)
        return "embed"

    def rank(self, keys: list[str], features: Tensor, word: Tensor, measured: dict[str, Scores]) -> None:
        """Ask every detector for its scores.

        Args:
            keys: N pairs.
            features: Features of the pictures, ``(N, D)``, of unit length.
            word: Index of the word that each pair belongs to, ``(N,)`` int64; -1 for none.
            measured: By name ``(N,)``, the similarity and UBT's evidence.
        """
        scores: dict[str, Scores] = {}
        if self._losses is not None:
            scores[LEARNT_FIRST] = -aligned(self._losses[0], keys, self._losses[1])
        pairs = RankedPairs(keys, features.cpu(), measured["similarity"], word.cpu(), self.seed)
        for detector in self.detectors:
            scores |= asked_scores(detector, pairs)
        scores |= {piece.name: piece.suspicion({POISONED: measured[piece.name]}) for piece in self.evidence}
        self.keys, self.scores = keys, {name: score.astype(np.float32) for name, score in scores.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the scores."""
        super().on_save_checkpoint(checkpoint)
        keys, losses = self._losses if self._losses is not None else ([], np.zeros(0, np.float32))
        checkpoint["pair_detectors"] = {
            "learnt": {"keys": keys, "loss": torch.from_numpy(losses)},
            "keys": list(self.keys),
            "scores": {name: torch.from_numpy(score) for name, score in self.scores.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with them."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["pair_detectors"]
        learnt = state["learnt"]
        self._losses = (list(learnt["keys"]), learnt["loss"].numpy()) if learnt["keys"] else None
        self.keys, self.scores = list(state["keys"]), {name: score.numpy() for name, score in state["scores"].items()}


class Embed(Phase[PairDetectors]):
    """One pass of the model as it came: features, similarity, UBT's evidence and the words of every caption.

    Args:
        sampled: Pairs in which words are looked for.
        min_share: Least share of these that a word carries.
    """

    def __init__(self, sampled: int, min_share: float) -> None:
        super().__init__("embed")
        self.sampled, self.min_share = sampled, min_share
        self._words = Words()
        self._table = self._embeddings = torch.zeros(0)
        self._scores, self._features = PassScores(), PassRows()

    def begin(self, module: PairDetectors) -> None:
        """Bring the model back, and find the words."""
        module.restore()
        self._words = words_of_sample(module, self.sampled, self.min_share)
        self.repeat(module)

    def select(self, module: PairDetectors, epoch: int) -> None:
        """Everything, as it is in the shards."""
        module.data.select(None, in_order=True)

    def prepare(self, module: PairDetectors) -> None:
        """Embed the words."""
        with module.evaluating():
            self._embeddings = self._words.embeddings(lambda captions: self._encoded(module, captions))
        self._table = self._words.table().to(module.device)

    def repeat(self, module: PairDetectors) -> None:
        """Start with nothing: each pair is to be seen once."""
        self._scores, self._features = PassScores(), PassRows()

    def step(self, module: PairDetectors, batch: ImageTextBatch, batch_idx: int) -> None:
        """Note what there is to be known of each pair."""
        with module.evaluating():
            has, captions = has_words(batch["tokens"], self._table), module.encode_text(batch["tokens"])
            seen = (batch["key"], batch["image"], batch["tokens"], module.encode_image, captions)
            pairs = Pairs(*seen, self._embeddings, has)
            own = similarities(pairs.features(), self._embeddings).masked_fill(~has, -2.0).argmax(dim=1)
            word = torch.where(has.any(dim=1), own, -1)
            values = {"word": word, "similarity": pairs.similarity()}
            values |= {piece.name: piece.measure(pairs, POISONED) for piece in module.evidence}
        self._scores.add(batch["key"], values)
        self._features.add(pairs.features())

    def end(self, module: PairDetectors) -> None:
        """Rank the pairs of all ranks; the run is over."""
        keys, seen = self._scores.gather()
        features = self._features.gather()
        self.repeat(module)
        module.rank(list(keys), features, torch.from_numpy(seen.pop("word")).long(), seen)

    def state_dict(self) -> dict[str, Any]:
        """The words, and what was seen so far on all ranks."""
        seen = {"scores": self._scores.state_dict(), "features": self._features.state_dict()}
        return {"words": self._words.state_dict(), **seen}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with this rank's."""
        self._words = Words.of_state(state_dict["words"])
        self._scores.load_state_dict(state_dict["scores"], rank)
        self._features.load_state_dict(state_dict["features"], rank)

    def _encoded(self, module: PairDetectors, captions: Sequence[str]) -> Tensor:
        return module.encode_text(module.preprocessing.tokenize(captions).to(module.device))
