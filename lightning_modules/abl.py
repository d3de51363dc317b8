"""ABL for CLIP: isolate the pairs that are learnt first, then unlearn them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts import DECISIONS, ImageTextBatch, Suspicion, UserMistake
from ..trainer.seed import run_seed
from .isolation import Isolate, chance_level, mean_by_key
from .losses import PairLosses
from .losses.gather import mean_over_ranks
from .optimisation import warmup_cosine
from .phased import Phase, PhasedCLIPModule, among_others, phase_table
from .phased.scores import Scores
from .ranges import check_ranges


class ABL(PhasedCLIPModule):
    """A poisoned CLIP that unlearns the pairs which an untrained model learns first. No clean pair is needed.

    Anti-Backdoor Learning (Li et al., arXiv 2110.11571) rests on one observation: a shortcut is learnt earlier than
    what pictures show, so the loss of poisoned samples falls first.

    1. *Isolate*: a model is trained on all pairs with a trap, local gradient ascent: ``sign(l_i - gamma) * l_i`` for
       the loss ``l_i`` of each. A pair whose loss has fallen below ``gamma`` is pushed up to it again; shortcuts fall
       through all the same. The share of the pairs with the lowest loss is isolated.
    2. *Unlearn*: gradient ascent on the isolated ones, descent on the others.

    Sources: the abstract and the official code for classifiers (bboylyg/ABL: 10 epochs, gamma 0.5, the lowest 1 %).
    For CLIP, Huang et al. (arXiv 2502.01385) rank pairs by their mean loss in the first ten epochs. What the
    contrastive form of the ascent is, is not published. Deviations, and what is ours:

    - The trapped model is a copy that begins as ``encoder`` says, random or pretrained; it is only asked for the
      losses, their mean over its epochs. What is cleaned is the poisoned model of ``init_from``. ABL unlearns in the
      trapped model itself, after 60 epochs on the others.
    - ``l_i`` is the contrastive loss of a pair in its batch, whose chance level is the logarithm of the batch size;
      ``gamma`` is a share of it.
    - In the unlearning, an isolated pair has the others of its batch as negatives, but not isolated ones, whose
      captions say the same. Its loss counts up to the chance level, ``ceiling`` times: ascent has no end by itself.
    - Descent and ascent share each batch, with ``retained_per_isolated`` other pairs for an isolated one.
    - The image tower alone unlearns, and batch norm is frozen: the text tower would take the forgetting upon itself.

    A share is always isolated, also of clean data: ABL has no verdict.

    Each phase takes epochs of one ``fit``, which needs ``trainer.max_epochs=-1`` and
    ``trainer.reload_dataloaders_every_n_epochs=1``. The pairs that it isolated stand in ``suspects.csv``.

    Logs: ``abl/phase``, ``abl/seconds/PHASE``, ``train/loss``; in the isolation ``train/pair_loss``, the mean before
    the trap; in the unlearning ``train/retained`` and ``train/isolated``, sums of the two parts over the batch size.

    Args:
        isolation_epochs: Epochs of the trapped model.
        isolation_lr: Its learning rate, after ``warmup_steps``.
        gamma: Where the trap is, as a share of the chance level, in (0, 1].
        isolated_share: Share of all pairs that is unlearnt, in (0, 1].
        unlearn_epochs: How often each isolated pair is seen.
        retained_per_isolated: Other pairs for an isolated one, at least 1.
        unlearn_weight: Weight of the ascent beside the descent.
        ceiling: Up to which multiple of the logarithm of the batch size the loss of an isolated pair is raised.
        seed: Seed of the trapped model's first weights, and of the draw of other pairs; the seed of
            ``seed_everything`` unless given.
        lr: Peak learning rate of the unlearning, before a cosine to zero.

    Raises:
        UserMistake: If a parameter is out of range.
    """

    def __init__(
        self,
        *args: Any,
        isolation_epochs: int = 3,
        isolation_lr: float = 1e-3,
        gamma: float = 0.5,
        isolated_share: float = 0.01,
        unlearn_epochs: int = 5,
        retained_per_isolated: int = 3,
        unlearn_weight: float = 1.0,
        ceiling: float = 1.0,
        seed: int | None = None,
        lr: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lr=lr, **kwargs)
        counts = {"isolation_epochs": isolation_epochs, "unlearn_epochs": unlearn_epochs}
        check_ranges(
            {**counts, "retained_per_isolated": retained_per_isolated},
            {"isolation_lr": isolation_lr, "unlearn_weight": unlearn_weight, "ceiling": ceiling},
            {"gamma": gamma, "isolated_share": isolated_share},
        )
        self.isolated_share, self.seed = isolated_share, run_seed(seed)
        self.phases = phase_table(
            Isolate(isolation_epochs, isolation_lr, gamma, self.seed, self.isolate),
            Unlearn(unlearn_epochs, lr, retained_per_isolated, unlearn_weight, ceiling),
        )
        self.keys: list[str] = []
        """The training pairs, once they were ranked."""
        self.mean_loss: Scores = np.zeros(0, np.float32)
        """``(N,)``, their mean loss under the trapped model."""
        self.isolated: frozenset[str] = frozenset()
        """The keys of those that are unlearnt."""

    @property
    def chance(self) -> float:
        """The contrastive loss of a pair in a batch of which nothing is known."""
        return chance_level(self)

    @property
    def suspicion(self) -> Suspicion | None:
        """The isolated pairs; None before they are."""
        if not self.keys:
            return None
        decision = np.array([DECISIONS.index("poisoned") * (key in self.isolated) for key in self.keys], dtype=np.int8)
        return Suspicion(self.keys, {"learnt_first": -self.mean_loss}, decision, (), "isolate")

    def account(self) -> str:
        """How many were isolated."""
        return f"{len(self.isolated):,} of {len(self.keys):,} pairs isolated"

    def isolate(self, keys: list[str], losses: Scores) -> str:
        """Rank all pairs by their losses, and isolate the lowest.

        Args:
            keys: Keys of pairs, each as often as it was seen.
            losses: Losses of these pairs, ``(N,)``.

        Returns:
            The phase that comes next.
        """
        self.keys, self.mean_loss = mean_by_key(keys, losses)
        count = max(1, round(self.isolated_share * len(self.keys)))
        self.isolated = frozenset(self.keys[index] for index in np.argsort(self.mean_loss, kind="stable")[:count])
        return "unlearn"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was isolated."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["abl"] = {
            "keys": list(self.keys),
            "mean_loss": torch.from_numpy(self.mean_loss),
            "isolated": sorted(self.isolated),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with it."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["abl"]
        self.keys, self.mean_loss = list(state["keys"]), state["mean_loss"].numpy()
        self.isolated = frozenset(state["isolated"])


class Unlearn(Phase[ABL]):
    """Ascent on isolated pairs, descent on others, from the poisoned model.

    Args:
        epochs: Passes over all isolated pairs.
        lr: Peak learning rate.
        retained: Other pairs for each isolated one, drawn anew in each epoch.
        weight: Weight of the ascent beside the descent.
        ceiling: See ``ABL``.
    """

    learning = ("image",)
    evaluated = True

    def __init__(self, epochs: int, lr: float, retained: int, weight: float, ceiling: float) -> None:
        super().__init__("unlearn", epochs, lr)
        self.retained, self.weight, self.ceiling = retained, weight, ceiling
        self.pair_losses = PairLosses()
        self._steps = 1

    def begin(self, module: ABL) -> None:
        """Bring the poisoned model back."""
        module.restore()

    def select(self, module: ABL, epoch: int) -> None:
        """The isolated pairs, and some of the others.

        Raises:
            UserMistake: If they do not fill a batch.
        """
        others = [key for key in module.keys if key not in module.isolated]
        pairs = among_others(sorted(module.isolated), others, self.retained, module.seed, epoch)
        self._steps = len(pairs) // module.data.global_batch_size
        if not self._steps:
            raise UserMistake(
                f"ABL: {len(module.isolated)} isolated pairs and {len(pairs) - len(module.isolated)} others do not "
                f"fill a batch of {module.data.global_batch_size}: raise model.isolated_share or retained_per_isolated"
            )
        module.data.select(pairs)

    def learning_rate(self, module: ABL, step: int) -> float:
        """A cosine over the steps of the phase."""
        return self.lr * warmup_cosine(step, 0, self.epochs * self._steps)

    def step(self, module: ABL, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The loss of the others, less that of the isolated pairs."""
        known = torch.tensor([key in module.isolated for key in batch["key"]])
        isolated = known.to(module.device, non_blocking=True)
        losses: Tensor = self.pair_losses(*module(batch), module.inverse_temperature, isolated)
        raised = losses.clamp(max=self.ceiling * module.chance)
        retained = torch.where(isolated, 0.0, losses).mean()
        ascended = torch.where(isolated, raised, 0.0).mean()
        module.log_parts(retained=retained, isolated=ascended)
        return mean_over_ranks(retained - self.weight * ascended)

    def end(self, module: ABL) -> None:
        """The run is over."""
        return
