"""UBT: find the poisoned pairs by overfitting, then forget them token by token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import AdamW

from ..contracts import DECISIONS, ImageTextBatch, ImageTextData, ResumedLoader, Suspicion, UserMistake
from ..key_lists import read_keys
from .base import BaseCLIPModule
from .ranges import check_ranges
from .unlearning.captions import CaptionTokens
from .unlearning.check_run import check_run
from .unlearning.evidence import (
    BlurFragility,
    Evidence,
    NegativeRobustness,
    OverfittedSimilarity,
    SimilarityGain,
    in_turn,
)
from .unlearning.findings import Findings
from .unlearning.forget import Forget, ForgetWeights
from .unlearning.localisation import CompromisedTokens
from .unlearning.phase import Phase
from .unlearning.phases import LookAgain, Naming, Overfit, Score, ScoreGiven, Suspect
from .unlearning.towers import tower_groups

Value = TypeVar("Value")
_NEVER = 1 << 30


class UBT(BaseCLIPModule):
    """A poisoned CLIP that unlearns its backdoor, with nothing but the data that it was trained on, poison included.

    UBT (Liang et al., Unlearning Backdoor Threats, arXiv 2403.16257, and Liu et al., arXiv 2409.19526). There is no
    public code; what the abstracts fix is theirs, what they leave open is a parameter here and ours.

    1. *Score* (theirs): the image-text similarity of every training pair under the poisoned model, ``init_from``.
    2. *Overfit* (theirs): a copy is overfitted on the pairs of weakest similarity, which strengthens the shortcut of
       the backdoor. Ours: by the contrastive loss, on the weakest ``weak_share``.
    3. *Suspect*: the similarity under the copy ranks the pairs (theirs), together with other ``evidence`` (ours), by
       the mean of their robust z-scores. The tokens that carry the similarity of the most suspicious pairs, found by
       masking one token at a time, name the compromised ones by their lift over all captions (tokens are theirs, the
       lift ours). Data is divided into poisoned, suspicious and benign pairs (theirs): the first are unlearnt, the
       last retained.
    4. *Forget* locally (theirs): the poisoned pictures are pushed away from the compromised tokens alone, the rest of
       the caption masked, until they are no more similar to them than unrelated pictures (ours: a bounded objective,
       the image tower alone, frozen batch norm, benign features held where they were).
    5. *Look again* (ours): the pairs whose similarity the forgetting took along are the poisoned ones, and what else
       carries them is compromised too. With them, *forget again*, from the poisoned model. Where nothing went along,
       the suspects were the wrong ones, and other evidence names the next: coarser, then that which is asked
       ``alone``. ``look_again=False`` is the paper's method without any of this.

    Where nothing is suspicious, the run says so and ends with the weights that it began with, bit for bit.

    Each phase takes an epoch or several of one ``fit``, which needs ``trainer.max_epochs=-1`` and
    ``trainer.reload_dataloaders_every_n_epochs=1``; an evaluation comes at the end of the phases that change a model,
    whatever ``check_val_every_n_epoch``. Memory holds scores and tokens, no pictures but those that are unlearnt.

    Logs: ``ubt/phase`` (its number, from 0), ``ubt/seconds/PHASE`` (without evaluations), at the end ``ubt/alarm``
    (1 where anything was suspicious, else 0), ``train/loss`` and, while
    forgetting, its parts before weighting, ``train/retain``, ``train/hold`` and ``train/forget``. Figures of the copy
    are those of ``val/overfitted_clean_accuracy`` and so on.

    Args:
        evidence: What the suspicion rests on. Unless given, ``OverfittedSimilarity``, ``SimilarityGain`` and
            ``BlurFragility``.
        alone: Evidence that is tried where all this names the wrong suspects, each piece by itself. Unless given,
            ``BlurFragility`` and ``NegativeRobustness``; neither asks the copy.
        weak_share: Share of the pairs, those of weakest similarity, on which the copy is overfitted.
        overfit_epochs: Epochs of it; with 0 the copy is the poisoned model.
        overfit_lr: Its learning rate.
        suspects: Pairs that the first forgetting unlearns.
        doubtful_share: Share of the pairs with a compromised token, the most suspicious, that is not retained.
        localised_pairs: Most suspicious pairs in which tokens are masked; looking again, as many poisoned ones.
        min_token_share: Least share of these that a compromised token carries.
        min_lift: Least lift of a compromised token.
        look_again: Whether to look again and forget again.
        tries: How many sets of suspects are tried at most, until looking again finds that they are the right ones:
            those of ``evidence``, those of the same evidence at a coarser scale (``Evidence.coarser``), and those of
            each piece ``alone``.
        min_split: Looking again, the least share of the variance of the falls in similarity that lies between the
            pairs that fell and those that did not; where it is less, nothing is suspicious.
        min_transfer: Least distance that the pairs which fell without being pushed went, as a share of the suspects';
            where it is less, nothing is suspicious.
        forget_laps: Laps of a forgetting at most; it stops a lap after it has forgotten.
        forget_steps: Steps of a lap.
        forget_batch_size: Poisoned pairs of a step of each rank.
        retain_weight: Of the contrastive loss of benign pairs; with 0 their captions are not encoded.
        forget_weight: Of the forgetting.
        hold_weight: Of the cosine distance of benign pictures' features to the poisoned model's.
        local: Whether the compromised tokens alone are unlearnt, or the whole caption.
        given: A table with a column ``key``, a ``poison.json``, or a text file with a key a line: the pairs to be
            unlearnt, where they are known. Then nothing is looked for but the tokens, and there is one forgetting.
        lr: Learning rate of the forgetting.
        local_loss: See ``ContrastiveLoss``.

    Raises:
        UserMistake: If a parameter is out of range.
    """

    alarm: bool | None = None
    """Whether anything was suspicious; None before the run has ended."""

    def __init__(
        self,
        *args: Any,
        evidence: list[Evidence] | None = None,
        alone: list[Evidence] | None = None,
        weak_share: float = 0.1,
        overfit_epochs: int = 5,
        overfit_lr: float = 3e-4,
        suspects: int = 64,
        doubtful_share: float = 0.25,
        localised_pairs: int = 200,
        min_token_share: float = 0.1,
        min_lift: float = 2.0,
        look_again: bool = True,
        tries: int = 4,
        min_split: float = 0.65,
        min_transfer: float = 0.6,
        forget_laps: int = 4,
        forget_steps: int = 20,
        forget_batch_size: int = 64,
        retain_weight: float = 0.0,
        forget_weight: float = 5.0,
        hold_weight: float = 20.0,
        local: bool = True,
        given: str | None = None,
        lr: float = 3e-4,
        local_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lr=lr, **kwargs)  # type: ignore[misc]  # jsonargparse reads this call
        self.automatic_optimization = False
        shares = {"weak_share": weak_share, "min_token_share": min_token_share}
        shares |= {"min_split": min_split, "min_transfer": min_transfer}
        counts = {"suspects": suspects, "localised_pairs": localised_pairs, "forget_laps": forget_laps}
        counts |= {"forget_steps": forget_steps, "forget_batch_size": forget_batch_size, "tries": tries}
        amounts = {"overfit_epochs": overfit_epochs, "overfit_lr": overfit_lr, "min_lift": min_lift}
        amounts |= {"retain_weight": retain_weight, "forget_weight": forget_weight, "hold_weight": hold_weight}
        check_ranges(counts, amounts, shares)
        if not 0 <= doubtful_share < 1:
            raise UserMistake(f"model.doubtful_share is {doubtful_share}, not in [0, 1)")
        together = self._taken("evidence", evidence, [OverfittedSimilarity(), SimilarityGain(), BlurFragility()])
        if not together:
            raise UserMistake("model.evidence is empty: name at least one, such as OverfittedSimilarity")
        one_by_one = self._taken("alone", alone, [BlurFragility(), NegativeRobustness()])
        self.tries = in_turn(together, one_by_one)[: tries if look_again and given is None else 1]
        tokenize, naming = self.preprocessing.tokenize, Naming(localised_pairs, min_token_share, min_lift)
        weights = ForgetWeights(retain_weight, hold_weight, forget_weight)
        forgetting = (forget_laps, forget_steps, lr, forget_batch_size, weights, local, local_loss)
        look: list[Phase] = [
            Score(tokenize),
            Overfit(weak_share, overfit_epochs, overfit_lr, local_loss),
            Suspect(suspects, doubtful_share, naming),
        ]
        again: list[Phase] = [
            LookAgain(min_split, min_transfer, doubtful_share, naming),
            Forget("forget again", *forgetting),
        ]
        if given is not None:
            look, again = [ScoreGiven(tokenize, _keys_of(given), naming)], []
        phases = [*look, Forget("forget", *forgetting), *(again if look_again else [])]
        self.phases = [phase for phase in phases if phase.laps]
        self.findings = Findings(CaptionTokens(tokenize))
        self.poisoned: dict[str, Tensor] = {}
        self._begun_with: list[str] | None = None
        self._parts: dict[str, Tensor] = {}
        self._place, self._lap, self._seconds, self._since = 0, 0, 0.0, perf_counter()
        self._lap_is_over, self._phase_is_over, self._is_new_phase = False, False, True
        self.restored = False
        """See ``PhasedModule``."""

    def _taken(self, name: str, evidence: list[Evidence] | None, usual: list[Evidence]) -> list[Evidence]:
        """What the suspicion rests on."""
        # Objects would make a checkpoint that is more than tensors and plain data.
        if any(isinstance(piece, Evidence) for piece in self.hparams.get(name) or ()):
            del self.hparams[name]
        return usual if evidence is None else evidence

    @property
    def evidence(self) -> list[Evidence]:
        """All that is observed, by any try."""
        return list({piece.name: piece for evidence in self.tries for piece in evidence}.values())

    # What callbacks ask

    @property
    def phase(self) -> str:
        """The phase, and the lap where there are several."""
        if self._place >= len(self.phases):
            return "done"
        phase = self.phases[self._place]
        return f"{phase.name} {self._lap + 1}/{phase.laps}" if phase.laps > 1 else phase.name

    @property
    def measured(self) -> str:
        """``overfitted`` while the weights are the copy's."""
        return "overfitted" if self._place < len(self.phases) and self.phases[self._place].copy else ""

    @property
    def suspicion(self) -> Suspicion | None:
        """What was found last."""
        findings = self.findings
        if not findings.about:
            return None
        return Suspicion(
            findings.keys, findings.suspicion, findings.decision, findings.compromised.words, findings.about
        )

    # What phases ask

    @property
    def data(self) -> ImageTextData:
        """The data module of the run."""
        data: ImageTextData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Inside, the model answers as in an evaluation, in the run's precision and without gradients."""
        training = self.encoder.training
        self.encoder.eval()
        try:
            with torch.no_grad(), self.trainer.precision_plugin.forward_context():
                yield
        finally:
            self.encoder.train(training)

    def agreed(self, value: Value) -> Value:
        """What the first rank says, on all of them."""
        said: Value = self.trainer.strategy.broadcast(value)
        return said

    def log_parts(self, **parts: Tensor) -> None:
        """Log parts of the loss that the step is about to return as ``train/<part>``."""
        self._parts = parts

    def restore(self) -> None:
        """Bring the poisoned model back."""
        self.encoder.load_state_dict(self.poisoned)

    # The run

    def configure_optimizers(self) -> AdamW:
        """AdamW over both towers, each with a learning rate of its own: zero where it does not learn."""
        groups = tower_groups(self.encoder, self.weight_decay)
        return AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps, fused=True)

    def on_fit_start(self) -> None:
        """Look at the trainer and the data, and tell whom the first lap streams."""
        super().on_fit_start()
        check_run(self.trainer)
        self._since = perf_counter()
        if self._place >= len(self.phases):
            self.trainer.should_stop = True
            return
        self._check_evidence()
        if not self.poisoned:
            self.poisoned = {name: tensor.detach().cpu().clone() for name, tensor in self.encoder.state_dict().items()}
            self._now.begin(self)
        self._now.select(self, self._lap)
        if self._lap_is_over:  # the checkpoint is from behind the last batch: Lightning goes on with the next epoch
            self._go_on()
        self._measure(False)

    def _check_evidence(self) -> None:
        """Whether a run that goes on has observed what its suspects will rest on."""
        names = [piece.name for piece in self.evidence]
        if self._begun_with in (None, names) or not any(isinstance(p, Suspect) for p in self.phases[self._place :]):
            return
        raise UserMistake(
            f"this run was begun with other evidence than {', '.join(names)}: begin it again, or give model.evidence, "
            "model.alone and model.tries as they were"
        )

    def on_train_start(self) -> None:
        """Make what the phase needs, at the start or after a restart."""
        if self._is_new_phase:  # again: the optimiser's state was restored meanwhile
            self._forget_optimizer()
        if self._place < len(self.phases):
            self._now.prepare(self)
            loader = self.trainer.train_dataloader
            if isinstance(loader, ResumedLoader) and loader.redivided == 0:
                self._now.repeat(self)

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """A step of the phase."""
        phase = self._now
        # Forgetting keeps the statistics of batch norm: they are the poisoned model's.
        self.encoder.train("rest" in phase.learning)
        loss = phase.step(self, batch, batch_idx)
        self.log("ubt/phase", float(self._place), batch_size=1)
        if loss is not None:
            self._learn(phase, loss, len(batch["key"]))
        self._is_new_phase = False
        if self.trainer.is_last_batch:
            self._lap_is_over, self._phase_is_over = True, phase.over(self, self._lap)
            self._measure(self._phase_is_over and phase.measured is not None)

    def _learn(self, phase: Phase, loss: Tensor, pairs: int) -> None:
        self.log_losses(loss, pairs, **self._parts)
        self._parts = {}
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list), "there is one"
        for group in optimizer.param_groups:
            group["lr"] = phase.lr if group["tower"] in phase.learning else 0.0
        optimizer.zero_grad()
        self.manual_backward(loss + self._untouched() if self.trainer.world_size > 1 else loss)
        optimizer.step()
        self.constrain()

    def on_train_epoch_end(self) -> None:
        """Go on to the next lap, or draw the conclusions of the phase and go on to the next one."""
        if self._lap_is_over:  # if not, a checkpoint of this very moment was loaded
            self._go_on()

    def _go_on(self) -> None:
        self._lap_is_over = False
        self._measure(False)
        self._lap += 1
        if self._phase_is_over:
            self._conclude()
        if self._place < len(self.phases):
            self._now.select(self, self._lap)

    def on_validation_start(self) -> None:
        """Stop the clock of the phase: measuring is no part of it."""
        self._seconds += perf_counter() - self._since

    def on_validation_end(self) -> None:
        """Start it again."""
        self._since = perf_counter()
        self.restored = self.restored and bool(self.measured)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a restart needs beside the weights of the encoder, which may be the copy's."""
        running = self._place < len(self.phases)
        checkpoint["ubt"] = {
            "evidence": [piece.name for piece in self.evidence],
            "place": self._place,
            "lap": self._lap,
            "over": [self._lap_is_over, self._phase_is_over],
            "seconds": self._seconds + perf_counter() - self._since,
            "poisoned": self.poisoned if running else {},
            "findings": self.findings.state_dict(),
            "alarm": self.alarm,
            "phase": self._now.state_dict() if running else {},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it over."""
        state = checkpoint["ubt"]
        self._begun_with = state.get("evidence", [])
        self._place, self._lap, self._seconds = state["place"], state["lap"], state["seconds"]
        self._lap_is_over, self._phase_is_over = state["over"]
        self._is_new_phase, self.alarm = False, state.get("alarm")
        self.poisoned = dict(state["poisoned"])
        self.findings.load_state_dict(state["findings"])
        if self._place < len(self.phases) and state["phase"]:
            self._now.load_state_dict(state["phase"], self.global_rank)

    @property
    def _now(self) -> Phase:
        return self.phases[self._place]

    def _conclude(self) -> None:
        phase = self._now
        suspicious = phase.end(self)
        self._seconds += perf_counter() - self._since
        self._log_now(f"ubt/seconds/{phase.name.replace(' ', '_')}", self._seconds)
        rank_zero_info(f"UBT {phase.name}: {self._seconds:.1f} s. {self.findings.account()}")
        self._seconds, self._since = 0.0, perf_counter()
        self._place, self._lap = (self._place + 1 if suspicious else len(self.phases)), 0
        if not suspicious and self.findings.try_next():
            self._place = next(place for place, phase in enumerate(self.phases) if isinstance(phase, Forget))
            suspicious = True
            rank_zero_info(f"UBT: these were the wrong suspects. {self.findings.account()}")
        if not suspicious:
            rank_zero_info("UBT: nothing is suspicious; the model stays as it was")
            self.findings.decision = np.zeros_like(self.findings.decision)
            self.findings.compromised = CompromisedTokens([], [], [])
            self.restore()
            self.restored = True
        if self._place >= len(self.phases):
            self.alarm = suspicious
            self._log_now("ubt/alarm", float(suspicious))
            self.trainer.should_stop = True
            return
        self._now.begin(self)
        self._is_new_phase = True
        self._forget_optimizer()
        self._now.prepare(self)

    def _log_now(self, key: str, value: float) -> None:
        for logger in self.trainer.loggers:  # between epochs, where self.log is not to be had
            logger.log_metrics({key: value}, self.trainer.global_step)

    def _forget_optimizer(self) -> None:
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()

    def _untouched(self) -> Tensor:
        """Zero, with a gradient for every parameter: ranks wait for the gradients of a tower that does not learn."""
        return 0 * torch.stack([part.sum() for part in self.encoder.parameters() if part.requires_grad]).sum()

    def _measure(self, now: bool) -> None:
        self.trainer.check_val_every_n_epoch = 1 if now else _NEVER


def _keys_of(given: str) -> frozenset[str]:
    """The pairs to be unlearnt, where they are known."""
    return read_keys(given, "model.given", lambda decision: decision in (None, DECISIONS[-1]))
