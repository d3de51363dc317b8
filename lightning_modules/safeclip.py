"""SafeCLIP: pretraining that ties a picture to its caption only once the two are known to go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..contracts import DECISIONS, ImageTextBatch, Suspicion
from .batch_norm import RunningStatisticsKept
from .detection import TwoGaussians
from .feature_pool import FeaturePool
from .losses import ContrastiveLoss, SelfSupervisedLoss
from .optimisation import warmup_cosine
from .phased import Phase, PhasedCLIPModule, phase_table
from .phased.scores import PassScores, Scores
from .ranges import check_ranges
from .views import check_views


class SafeCLIP(PhasedCLIPModule):
    """A CLIP that is pretrained on data that may be poisoned, so that poison is not learnt. It cleans no model.

    SafeCLIP (Yang et al., arXiv 2310.05862):

    1. *Unimodal*: pictures and captions are learnt apart, each against its own augmented view: the nearest feature in a
       pool of the last ones has to find the view among the views of the batch.
    2. *Multimodal*: one epoch of CLIP's loss at a rate so small that poison is not learnt, what is common is.
    3. Then, each epoch: *divide*, a mixture of two Gaussians is fitted to the similarities of all pairs; the pairs that
       are of the higher one with a probability above ``safe_probability`` are safe, in later epochs as many as that
       and ``growth`` more each time, up to ``largest_share``, by their probability. *Risky*: the others are learnt as
       in 1. *Safe*: the safe ones are learnt with CLIP's loss.

    Sources: the abstract and the official code (``SafeCLIP/src/main.py``): the order risky, then safe; the two rates;
    the first split by probability and later ones by rank. Deviations, and what is ours:

    - Nearest neighbours are looked for both ways, of originals for the views and of views for the originals. A pool is
      empty at first, and the features then stand for themselves.
    - The rate of each of the two parts of an epoch follows a cosine over the epochs that remain, without the code's
      second warm-up.
    - Where fewer safe pairs than a batch are found, the most probable ones fill one. Where fewer risky pairs than a
      batch are left, their part of the epoch is left out.
    - Originals and views are encoded apart, and batch norm's running statistics are those of the originals.

    A run of this class is a defence although it starts from random weights, and its rows say what would be if one had
    trained like this. It needs ``trainer.max_epochs=-1``, ``trainer.reload_dataloaders_every_n_epochs=1``,
    ``data.image_view`` and ``data.text_view``. Which pairs are risky in the end stands in ``suspects.csv``.

    Logs: ``safeclip/phase``, ``safeclip/seconds/PHASE``, ``safeclip/safe_share``; ``train/loss``, and its parts
    ``train/image`` and ``train/text`` where it is unimodal.

    Args:
        unimodal_epochs: Epochs of the first part.
        multimodal_lr: Rate of the second part.
        epochs: Epochs of the third part.
        safe_probability: Above which a pair is safe at the first split, in (0, 1].
        growth: Share of all pairs by which the safe ones grow from one epoch to the next.
        largest_share: Share of all pairs that is safe at most, in (0, 1].
        pool_size: Features of each of the two pools.
        lr: Peak rate of everything else, after ``warmup_steps`` in the first part.

    Raises:
        UserMistake: If a parameter is out of range, or there are no views.
    """

    is_defence: ClassVar[bool | None] = True

    def __init__(
        self,
        *args: Any,
        unimodal_epochs: int = 5,
        multimodal_lr: float = 5e-6,
        epochs: int = 26,
        safe_probability: float = 0.9,
        growth: float = 0.01,
        largest_share: float = 0.85,
        pool_size: int = 256,
        lr: float = 5e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lr=lr, **kwargs)
        check_ranges(
            {"unimodal_epochs": unimodal_epochs, "epochs": epochs, "pool_size": pool_size},
            {"multimodal_lr": multimodal_lr, "growth": growth},
            {"safe_probability": safe_probability, "largest_share": largest_share},
        )
        self.epochs, self.safe_probability = epochs, safe_probability
        self.growth, self.largest_share = growth, largest_share
        self.image_pool, self.text_pool = (FeaturePool(pool_size, self.encoder.embedding_dim) for _ in range(2))
        self.contrastive, self.self_supervised = ContrastiveLoss(), SelfSupervisedLoss()
        self.phases = phase_table(
            Unimodal("unimodal", unimodal_epochs, lr),
            Multimodal("multimodal", 1, multimodal_lr),
            Divide("divide"),
            Risky("risky", 1, lr),
            Safe("safe", 1, lr),
        )
        self.keys: Sequence[str] = []
        """The training pairs, once they were divided."""
        self.risk: Scores = np.zeros(0, np.float32)
        """``(N,)``, log odds that a pair's similarity is of the lower Gaussian."""
        self.safe = np.zeros(0, dtype=bool)
        """``(N,)``, which pairs are safe."""
        self._first_share = 0.0
        self.divisions = 0
        """How often they were."""

    @property
    def suspicion(self) -> Suspicion | None:
        """What the last division says; None before."""
        if self.divisions < self.epochs:
            return None
        decision = np.where(self.safe, DECISIONS.index("benign"), DECISIONS.index("suspicious")).astype(np.int8)
        return Suspicion(self.keys, {"gaussian_mixture": self.risk}, decision, (), "divide")

    def account(self) -> str:
        """How many pairs are safe."""
        return f"{int(self.safe.sum()):,} of {len(self.keys):,} pairs are safe" if self.keys else ""

    def check_batches(self, names: Any) -> None:
        """Check whether a batch has captions and the views that the unimodal loss needs."""
        super().check_batches(names)
        check_views(names, "SafeCLIP")

    def unimodal(self, batch: ImageTextBatch) -> Tensor:
        """The loss of pictures and captions apart, each against its view."""
        images, texts = self(batch)
        with RunningStatisticsKept(self.encoder.image_tower):
            views = self.encode_image(batch["image_view"])
        parts = {
            "image": self._against_view(images, views, self.image_pool),
            "text": self._against_view(texts, self.encode_text(batch["tokens_view"]), self.text_pool),
        }
        self.log_parts(**parts)
        return parts["image"] + parts["text"]

    def multimodal(self, batch: ImageTextBatch) -> Tensor:
        """CLIP's loss."""
        loss: Tensor = self.contrastive(*self(batch), self.inverse_temperature)
        return loss

    def divide(self, keys: Sequence[str], similarity: Scores) -> None:
        """Classify pairs as safe or risky.

        Args:
            keys: N keys.
            similarity: Similarities, ``(N,)``, of each picture and its caption.
        """
        mixture = TwoGaussians.fitted(similarity)
        probability = np.nan_to_num(mixture.higher_probability(similarity))
        self.keys, self.risk = keys, mixture.lower_odds(similarity).astype(np.float32)
        if not self.divisions:
            self._first_share = float((probability >= self.safe_probability).mean())
        grown = self._first_share + self.divisions * self.growth
        share = min(grown, self.largest_share) if self.divisions else grown
        count = max(round(share * len(keys)), self.data.global_batch_size)
        order = np.lexsort((-similarity, -probability))  # among equally probable ones, the most similar first
        self.safe = np.zeros(len(keys), dtype=bool)
        self.safe[order[:count]] = True
        self.divisions += 1
        self.log_now("safeclip/safe_share", float(self.safe.mean()))

    def of(self, safe: bool) -> list[str]:
        """The keys of the safe pairs, or of the risky ones."""
        return [key for key, chosen in zip(self.keys, self.safe == safe, strict=True) if chosen]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was divided."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["safeclip"] = {
            "keys": list(self.keys),
            "risk": torch.from_numpy(self.risk),
            "safe": torch.from_numpy(self.safe),
            "first_share": self._first_share,
            "divisions": self.divisions,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with it."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["safeclip"]
        self.keys, self.risk, self.safe = list(state["keys"]), state["risk"].numpy(), state["safe"].numpy()
        self._first_share, self.divisions = state["first_share"], state["divisions"]

    def _against_view(self, features: Tensor, views: Tensor, pool: FeaturePool) -> Tensor:
        """Each one's nearest in the pool has to find the other: features and views, both ways."""
        scale = self.inverse_temperature
        there: Tensor = self.self_supervised(pool.nearest(features), views, scale)
        back: Tensor = self.self_supervised(pool.nearest(views), features, scale)
        pool.add(features)
        return (there + back) / 2


class Unimodal(Phase[SafeCLIP]):
    """Pictures and captions apart, on everything."""

    learning, train_mode = ("image", "rest"), True

    def select(self, module: SafeCLIP, epoch: int) -> None:
        """Everything."""
        module.data.select(None)

    def learning_rate(self, module: SafeCLIP, step: int) -> float:
        """A warm-up, then constant."""
        return self.lr * warmup_cosine(step, module.warmup_steps, None)

    def step(self, module: SafeCLIP, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The unimodal loss."""
        return module.unimodal(batch)

    def end(self, module: SafeCLIP) -> str:
        """On to both together."""
        return "multimodal"


class Multimodal(Phase[SafeCLIP]):
    """Pictures and captions together, on everything, at a small rate."""

    learning, train_mode, keeps_optimiser = ("image", "rest"), True, True

    def select(self, module: SafeCLIP, epoch: int) -> None:
        """Everything."""
        module.data.select(None)

    def step(self, module: SafeCLIP, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """CLIP's loss."""
        return module.multimodal(batch)

    def end(self, module: SafeCLIP) -> str:
        """On to the division."""
        return "divide"


class Divide(Phase[SafeCLIP]):
    """The similarity of all pairs, as they are, and which of them are safe."""

    keeps_optimiser = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._scores = PassScores()

    def begin(self, module: SafeCLIP) -> None:
        """Start with nothing."""
        self._scores = PassScores()

    def select(self, module: SafeCLIP, epoch: int) -> None:
        """Everything, as it is in the shards."""
        module.data.select(None, in_order=True)

    def repeat(self, module: SafeCLIP) -> None:
        """Start with nothing: each pair is to be scored once."""
        self._scores = PassScores()

    def step(self, module: SafeCLIP, batch: ImageTextBatch, batch_idx: int) -> None:
        """Note the similarity."""
        with module.evaluating():
            images, texts = module(batch)
        self._scores.add(batch["key"], {"similarity": (images * texts).sum(dim=1)})

    def end(self, module: SafeCLIP) -> str:
        """Divide them; where hardly any is risky, only the safe ones are learnt."""
        keys, values = self._scores.gather()
        module.divide(keys, values["similarity"])
        return "safe" if len(module.of(safe=False)) < module.data.global_batch_size else "risky"

    def state_dict(self) -> dict[str, Any]:
        """The similarities so far, of all ranks."""
        return self._scores.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with this rank's."""
        self._scores.load_state_dict(state_dict, rank)


class Part(Phase[SafeCLIP]):
    """A part of an epoch after a division."""

    learning, train_mode, keeps_optimiser = ("image", "rest"), True, True
    safe: ClassVar[bool]
    """Whose part it is."""

    def __init__(self, name: str, epochs: int, lr: float) -> None:
        super().__init__(name, epochs, lr)
        self._steps = 1

    def select(self, module: SafeCLIP, epoch: int) -> None:
        """Its pairs."""
        keys = module.of(self.safe)
        self._steps = max(len(keys) // module.data.global_batch_size, 1)
        module.data.select(keys)

    def learning_rate(self, module: SafeCLIP, step: int) -> float:
        """A cosine to zero over all epochs, whatever number of steps each has."""
        done = (module.divisions - 1 + step / self._steps) / module.epochs
        return self.lr * warmup_cosine(round(1e6 * done), 0, 1_000_000)


class Risky(Part):
    """The risky pairs, pictures and captions apart."""

    safe = False

    def step(self, module: SafeCLIP, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The unimodal loss."""
        return module.unimodal(batch)

    def end(self, module: SafeCLIP) -> str:
        """On to the others."""
        return "safe"


class Safe(Part):
    """The safe pairs, pictures and captions together."""

    safe = True

    def prepare(self, module: SafeCLIP) -> None:
        """Note whether this is the last pass: an evaluation follows it."""
        self.evaluated = module.divisions >= module.epochs

    def step(self, module: SafeCLIP, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """CLIP's loss."""
        return module.multimodal(batch)

    def end(self, module: SafeCLIP) -> str | None:
        """On to the next division, unless this was the last epoch."""
        return None if module.divisions >= module.epochs else "divide"
