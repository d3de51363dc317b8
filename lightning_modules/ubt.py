"""UBT: find the poisoned pairs by overfitting, then forget them token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ..contracts import DECISIONS, Suspicion, UserMistake
from ..key_lists import read_keys
from .phased import Phase, PhasedCLIPModule, phase_table
from .ranges import check_ranges
from .unlearning.captions import CaptionTokens
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
from .unlearning.phases import LookAgain, Naming, Overfit, Score, ScoreGiven, Suspect


class UBT(PhasedCLIPModule):
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
        forget_laps: Epochs of a forgetting at most; it stops an epoch after it has forgotten.
        forget_steps: Steps of such an epoch.
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
        super().__init__(*args, lr=lr, **kwargs)
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
        look: list[Phase[UBT]] = [Score(tokenize)]
        if given is not None:
            look, look_again = [ScoreGiven(tokenize, _keys_of(given), naming)], False
        else:
            if overfit_epochs:
                look.append(Overfit(weak_share, overfit_epochs, overfit_lr, local_loss))
            look.append(Suspect(suspects, doubtful_share, naming))
        again: list[Phase[UBT]] = [
            LookAgain(min_split, min_transfer, doubtful_share, naming),
            Forget("forget again", *forgetting),
        ]
        forget = Forget("forget", *forgetting, successor="look again" if look_again else None)
        self.phases = phase_table(*look, forget, *(again if look_again else []))
        self.findings = Findings(CaptionTokens(tokenize))
        self._begun_with: list[str] | None = None

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
    def prefix(self) -> str:
        """``ubt``, of subclasses too."""
        return "ubt"

    @property
    def suspicion(self) -> Suspicion | None:
        """What was found last."""
        findings = self.findings
        if not findings.about:
            return None
        return Suspicion(
            findings.keys, findings.suspicion, findings.decision, findings.compromised.words, findings.about
        )

    # The run

    def on_fit_start(self) -> None:
        """See, before anything is done, that a resumed run has observed what its suspects will rest on."""
        names = [piece.name for piece in self.evidence]
        is_asked = "suspect" in self.phases and isinstance(self.running, Score | Overfit | Suspect)
        if is_asked and self._begun_with not in (None, names):
            raise UserMistake(
                f"this run was begun with other evidence than {', '.join(names)}: begin it again, or give "
                "model.evidence, model.alone and model.tries as they were"
            )
        super().on_fit_start()

    def account(self) -> str:
        """The suspects and the compromised tokens."""
        return self.findings.account()

    def concluded(self) -> None:
        """Tell whether there is an alarm; where nothing is suspicious, restore the model."""
        self.alarm = bool(self.findings.compromised.tokens)
        if not self.alarm:
            rank_zero_info("UBT: nothing is suspicious; the model stays as it was")
            self.findings.decision = np.zeros_like(self.findings.decision)
            self.restore()
        self.log_now("ubt/alarm", float(self.alarm))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was found."""
        super().on_save_checkpoint(checkpoint)
        evidence = [piece.name for piece in self.evidence]
        checkpoint["ubt"] = {"evidence": evidence, "findings": self.findings.state_dict(), "alarm": self.alarm}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with it."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["ubt"]
        self._begun_with, self.alarm = state["evidence"], state["alarm"]
        self.findings.load_state_dict(state["findings"])


def _keys_of(given: str) -> frozenset[str]:
    """The pairs to be unlearnt, where they are known."""
    return read_keys(given, "model.given", lambda decision: decision in (None, DECISIONS[-1]))
