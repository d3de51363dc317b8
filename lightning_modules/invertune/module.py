"""InverTune: name the target, invert its trigger, and tune the neurons that the trigger needs."""

from __future__ import annotations

from typing import Any, ClassVar

from ...contracts import CaptionSearch, UserMistake
from ...trainer.lookup import data_of
from ..phased import phase_table
from .inversion import Invert
from .options import InversionOptions, TuningOptions
from .state import InverTuneState
from .tuning import Locate, Try, Tune


class InverTune(InverTuneState):
    """A poisoned CLIP whose backdoor is looked for with clean pairs, inverted, and tuned out of the neurons it needs.

    InverTune (Sun et al., arXiv 2506.12411, NDSS 2026):

    1. *Patch*, *count*: name the target, see ``TargetNaming``.
    2. *Invert*: a mask m and a pattern t, both of the size of a picture, so that ``x' = m t + (1 - m) x`` is taken for
       the target, of clean pictures x of other classes:

           5 CE(cos(f(x'), classes) / .07, target) + .5 ||f(x') - f(a picture of the target)||
           + (1 - SSIM(x', x)) + .01 ||m||_1

    3. *Locate*: the three layers of the image tower whose mean answer the trigger changes most, as a share of its
       length; in each, the neurons in the higher of two clusters of the change. *Tune* the image tower, with A the mean
       answers of these neurons and f_0 the poisoned model:

           sum over layers of ||A(x') - A(x)|| / ||A(x)||  +  .5 ||f(x) - f_0(x)||

       *Try*: whether the inverted trigger still works.

    Norms of features are over the whole batch, as in the code. Sources: the abstract, and the official code
    (``models/inversion.py``, ``ActivationTuning.py``, ``config/config.yaml`` at b289726). Deviations from it:

    - The target is the one that was named; theirs is written into the config by hand.
    - Mask, pattern and structural similarity are of pictures in [0, 1]; theirs of normalised ones. The optimiser takes
      one step a batch, as in its config (its README has 1,000).
    - Clean pictures of the inversion are those whose captions do not say the target, and pictures of the target those
      whose captions do, drawn from at most ``inversion.target_pairs``. Where no caption says it, that term is left out.
    - Layers may be of any image tower, see ``candidate_layers``; theirs are the stages of a ResNet. Layers and neurons
      are chosen on ``tuning.reference_pairs`` pictures, theirs on one batch.
    - Each step of the tuning has another batch; theirs takes all 200 on one. Batch norm keeps its statistics, which
      theirs moves. The cosine of the rate has its end at the end, where theirs climbs again after half of the steps.
      Gradients are not clipped, which AdamW, whose steps do not depend on their scale, hardly notices.
    - A given ``target`` takes the place of the first step.

    **What it needs**: clean pairs, some of whose captions say the target's name, the names of the classes, and the
    model. It asks for no label, and knows nothing of the poison. It always names a target, and always tunes: of a clean
    model too.

    It needs ``trainer.max_epochs=-1`` and ``trainer.reload_dataloaders_every_n_epochs=1``. The run folder gets
    ``target_naming.json``, and the inverted trigger as ``trigger.png`` and ``trigger.safetensors`` (``mask`` and
    ``pattern``, ``(3, S, S)`` each in [0, 1]).

    Logs: as ``TargetNaming``, but ``invertune/`` for ``target_naming/``; ``train/target``, ``train/alignment``,
    ``train/dissimilarity``, ``train/mask``, ``train/preservation``; ``invertune/mask_share``, the mean of the mask;
    ``invertune/arrived_before`` and ``invertune/arrived_after``, the share of clean pictures that the inverted trigger
    sends to the target; ``invertune/neurons``, the share of the chosen layers' neurons that were chosen;
    ``invertune/clean_cosine``, the mean cosine of clean pictures' features with what they were.

    Args:
        args: See ``BaseCLIPModule``.
        target: A class in place of the one that would be named.
        inversion: How the trigger is inverted.
        tuning: How the neurons are found and tuned.
        lr: Initial learning rate of AdamW, which tunes the neurons. ``warmup_steps`` changes nothing.
        weight_decay: Weight decay of AdamW.
        kwargs: See ``TargetNaming``.

    Raises:
        UserMistake: If the image tower has fewer layers to compare than are to be tuned for, or is to be compiled or
            run in micro-batches.
    """

    is_defence: ClassVar[bool | None] = None

    def __init__(
        self,
        *args: Any,
        target: str | None = None,
        inversion: InversionOptions = InversionOptions(),  # noqa: B008  # frozen
        tuning: TuningOptions = TuningOptions(),  # noqa: B008  # frozen
        lr: float = 2e-6,
        weight_decay: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, target=target, lr=lr, weight_decay=weight_decay, **kwargs)
        for name in ("inversion", "tuning"):
            self.hparams.pop(name, None)
        if not self.candidates:
            raise UserMistake("InverTune finds neither stages nor blocks in the image tower, whose layers it compares")
        if tuning.layers > (count := len(self.candidates)):
            raise UserMistake(
                f"model.tuning.layers is {tuning.layers}, and the image tower has {count} stages or blocks"
            )
        run = {"micro_batch_size": self.execution.micro_batch_size, "compile": self.execution.backend}
        for name, value in run.items():
            if value is not None:  # micro-batches would leave the last one's answers, and compiled towers none
                raise UserMistake(f"model.{name}: InverTune reads what layers answer to a whole batch; leave it out")
        self.phases = phase_table(
            *(self.naming_phases("invert") if target is None else ()),
            Invert(inversion, self.seed),
            Locate(tuning, self.seed),
            Tune(tuning, lr, self.seed),
            Try(tuning, self.seed),
        )

    def on_fit_start(self) -> None:
        """Check that captions can be searched, and that a given target is a class.

        Raises:
            UserMistake: If not.
        """
        if self.given_target is not None and self.given_target not in self.classnames:
            raise UserMistake(f"model.target {self.given_target!r} is none of the classes of data.zero_shot")
        if data_of(self.trainer, CaptionSearch) is None:
            raise UserMistake("InverTune needs pairs whose captions can be searched: use ImageTextDataModule as data")
        super().on_fit_start()
