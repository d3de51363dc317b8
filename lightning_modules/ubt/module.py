"""UBT: find the poisoned pairs in the data that a model was trained on, and make it forget what they have taught."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ...contracts import Suspicion, UserMistake
from ...run_folder.keys import read_poisoned_keys
from ...run_folder.ubt import ProbedWord, UBTRecord
from ...trainer.lookup import folder_to_write
from ..phased import Phase, phase_table
from ..ranges import check_ranges
from ..words.captions import CaptionTokens
from .evidence import OVERFITTED, ColourMargin, DetailMargin, Evidence, FlipFragility, OutlineMargin
from .findings import BENIGN, POISONED, SUSPICIOUS, Findings
from .options import OverfitOptions, ProbeOptions, RepairOptions
from .overfit import AskCopy, Overfit
from .probe import Probe
from .repair import Repair
from .score import Score, ScoreGiven
from .state import UBTState
from .unlearn import UnlearnWeights
from .verdict import Judgement
from .verify import Verify, Witness


class UBT(UBTState):
    """A poisoned CLIP that unlearns its backdoors, with nothing but the data that it was trained on, poison included.

    UBT (Liang et al., Unlearning Backdoor Threats, arXiv 2403.16257, and Liu et al., arXiv 2409.19526). There is no
    public code; what the abstracts fix is theirs, what they leave open is a parameter here and ours.

    1. *Score* (theirs): the image-text similarity of every training pair under the poisoned model, ``init_from``.
       Ours: the words that similarities depend on, any of which may be a target, found by masking one token at a time.
    2. *Overfit* (theirs): a copy is overfitted on the pairs of weakest similarity, which strengthens the shortcut of
       the backdoor. It is left out unless a piece of ``evidence`` asks the copy, such as ``OverfittedSimilarity``.
    3. *Suspect*: ``evidence`` ranks the pairs of each word by itself. The paper's is the similarity under the copy;
       ours is what a picture's detail alone says.
    4. *Probe* (ours): half of the most suspicious pairs of every word are pushed from it at once, and benign pictures
       that carry their detail are held. *Verify* (ours): where the other half moves too, and to many words, there
       is a backdoor, if a second witness says so too: gently changed, suspects are no better examples of their word
       than ordinary pairs (``fragility``). The pairs whose similarity fell are its poison. Data is divided into
       poisoned, suspicious and benign pairs (theirs): the first are unlearnt, the last retained.
    5. *Repair*, from the poisoned model. Forgetting is local (theirs): poisoned pictures are pushed away from the
       compromised word alone, the rest of the caption masked, until they are no more similar to it than unrelated ones
       (ours: a bounded objective, the image tower alone, frozen batch norm, benign features held). Pushing says where
       a picture must not be; so benign pictures that carry what poisoned ones carry keep the features of the benign
       picture (ours).
    6. The repaired model is scored and probed again, until nothing is found (ours).

    Where nothing is suspicious, the run says so and ends with the weights that it began with, bit for bit.

    Each phase takes an epoch or several of one ``fit``, which needs ``trainer.max_epochs=-1`` and
    ``trainer.reload_dataloaders_every_n_epochs=1``; an evaluation comes at the end of a repair, whatever
    ``check_val_every_n_epoch``. Memory holds scores and tokens, no pictures but those that are pushed.

    What was found is left in the run folder as ``ubt.json`` (`run_folder.ubt.UBTRecord`): whether there is an alarm,
    the compromised words, the number of pairs by decision, and what every probe said of every word.

    Logs: ``ubt/phase`` (its number, from 0), ``ubt/seconds/PHASE`` (without evaluations), at the end ``ubt/alarm``
    (1 where anything was suspicious, else 0), ``train/loss`` and its parts before weighting, ``train/hold``,
    ``train/repair`` and ``train/forget``. Figures of the copy are those of ``val/overfitted_clean_accuracy`` and so on.

    Args:
        evidence: What ranks the pairs of each word. Unless given, ``DetailMargin`` of three scales, ``FlipFragility``,
            ``OutlineMargin`` and ``ColourMargin``.
        overfit: How the paper's copy is made, where a piece of evidence asks for it.
        probe: How words are probed.
        repair: How what was found is unlearnt.
        rounds: Repairs at most.
        sampled_pairs: Pairs in which tokens are masked to find the words.
        min_word_share: Least share of these whose similarity a word carries.
        local: Whether the word alone is unlearnt, or captions that have it.
        given: A table with a column ``key``, a ``poison.json``, or a text file with a key a line: the pairs to be
            unlearnt, where they are known. Then nothing is looked for, and there is one repair.
        lr: Peak learning rate of the repair. ``warmup_steps`` changes nothing.
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
        overfit: OverfitOptions = OverfitOptions(),  # noqa: B008  # frozen
        probe: ProbeOptions = ProbeOptions(),  # noqa: B008  # frozen
        repair: RepairOptions = RepairOptions(),  # noqa: B008  # frozen
        rounds: int = 3,
        sampled_pairs: int = 2048,
        min_word_share: float = 0.004,
        local: bool = True,
        given: str | None = None,
        lr: float = 3e-4,
        local_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lr=lr, **kwargs)
        check_ranges({"rounds": rounds, "sampled_pairs": sampled_pairs}, {}, {"min_word_share": min_word_share})
        # Objects would make a checkpoint that is more than tensors and plain data.
        for name in ("evidence", "overfit", "probe", "repair"):
            self.hparams.pop(name, None)
        self.evidence = usual_evidence() if evidence is None else evidence
        names = [piece.name for piece in self.evidence]
        if not names:
            raise UserMistake("model.evidence is empty: name at least one, such as DetailMargin")
        if len(set(names)) < len(names):
            raise UserMistake(f"model.evidence has two of one name: {', '.join(names)}")
        self.rounds, self.local = rounds, local
        tokenize = self.preprocessing.tokenize
        copied = any(OVERFITTED in piece.models for piece in self.evidence)
        scoring = (tokenize, self.evidence, sampled_pairs, min_word_share, "overfit" if copied else "probe")
        weights = UnlearnWeights(repair.hold_weight, repair.repair_weight, repair.forget_weight)
        mend = Repair(repair.epochs, repair.steps, lr, repair.batch_size, weights, given is None)
        if given is not None:
            self.phases = phase_table(ScoreGiven(read_poisoned_keys(given, "model.given"), *scoring), mend)
        else:
            pushing = (probe.epochs, probe.steps, probe.lr, repair.batch_size)
            test = Probe(*pushing, self.evidence, probe.candidates, probe.doubtful_share, probe.words_at_once)
            copy: list[Phase[UBTState]] = [
                Overfit(overfit.weak_share, overfit.epochs, overfit.lr, local_loss),
                AskCopy(self.evidence),
            ]
            asked = Judgement(probe.significance, probe.min_moved, probe.min_variety)
            verdict = Verify(test, asked, Witness(probe.min_fragility, probe.certain), probe.retained_share)
            self.phases = phase_table(Score(*scoring), *(copy if copied else []), test, verdict, mend)
        self.findings = Findings(CaptionTokens(tokenize))
        self._answer = None
        self._begun_with: list[str] | None = None

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
            findings.keys, findings.suspicion, findings.decision, findings.compromised_words, findings.about
        )

    # The run

    def on_fit_start(self) -> None:
        """Check, before anything is done, that a resumed run has measured what its suspects will rest on."""
        names = [piece.name for piece in self.evidence]
        if self._begun_with not in (None, names):
            raise UserMistake(
                f"this run was begun with other evidence than {', '.join(names)}: begin it again, or give "
                "model.evidence as it was"
            )
        super().on_fit_start()

    def account(self) -> str:
        """The suspects and the compromised words."""
        return self.findings.account()

    def concluded(self) -> None:
        """Decide whether there is an alarm."""
        self.alarm = bool(self.findings.compromised)
        if not self.alarm:
            rank_zero_info("UBT: nothing is suspicious; the model stays as it was")
            self.findings.decision = np.zeros_like(self.findings.decision)
        self.log_now("ubt/alarm", float(self.alarm))

    @property
    def record(self) -> UBTRecord:
        """What was found, as ``ubt.json`` has it."""
        findings = self.findings
        benign, suspicious, poisoned = (len(findings.having(kind)) for kind in (BENIGN, SUSPICIOUS, POISONED))
        verdicts = [ProbedWord.of(verdict) for verdict in findings.verdicts]
        given = findings.about == "given"
        words = findings.compromised_words
        return UBTRecord(bool(self.alarm), given, words, benign, suspicious, poisoned, verdicts)

    def on_fit_end(self) -> None:
        """Leave ``ubt.json`` in the run folder, where the run has come to its end: now, or before it was resumed."""
        super().on_fit_end()
        folder = None if self.alarm is None else folder_to_write(self.trainer)
        if folder is not None:
            self.record.write(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was found, and the repaired weights while others are in the encoder."""
        super().on_save_checkpoint(checkpoint)
        running = self.running is not None
        checkpoint["ubt"] = {
            "evidence": [piece.name for piece in self.evidence],
            "findings": self.findings.state_dict(),
            "alarm": self.alarm,
            "answer": dict(self._answer) if running and self._answer is not None else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with it."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["ubt"]
        self._begun_with, self.alarm = state["evidence"], state["alarm"]
        self.findings.load_state_dict(state["findings"])
        self._answer = state["answer"]


def usual_evidence() -> list[Evidence]:
    """What ranks the pairs where nothing else is asked for."""
    return [DetailMargin([1 / 32, 1 / 16, 1 / 8]), FlipFragility(), OutlineMargin(), ColourMargin()]
