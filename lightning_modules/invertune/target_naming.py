"""InverTune's first step by itself: name the class that a universal adversarial patch sends pictures to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional

from ...contracts import ImageTextBatch, UserMistake, ZeroShotData
from ...trainer.lookup import data_of, folder_to_write
from ...trainer.seed import run_seed
from ..phased import Phase, PhasedCLIPModule, phase_table
from ..phased.sums import PassSums
from ..precision import similarities
from .options import PatchOptions
from .patch import patch_side, with_patch
from .shift import ClassShift
from .sought import SoughtPixels


class TargetNaming(PhasedCLIPModule):
    """Names the class that a backdoor in a model would most likely have as its target; the model stays as it is.

    The first step of InverTune (Sun et al., arXiv 2506.12411, NDSS 2026). A small universal patch is learnt that drives
    all pictures away from where they are, wherever they go. In a model with a backdoor, the way that is open from
    everywhere leads to the target, so of all classes y it gains most pictures:

        target = argmax over y of  P_adv(y) - P_clean(y)

    with P the shares of pictures that are taken for y, with the patch and without.

    1. *Patch*: a square of 3 % of the area, 14 of 224 pixels off the lower right corner, against the contrastive losses
       of pictures with themselves and with their captions (these five times), which are maximised.
    2. *Count*: predictions of clean pictures, with the patch and without.

    **There is no threshold, and no null**: some class gains most in every model, a clean one too, and it is named. What
    to look at is by how much, and how far the next one is behind.

    Source: the abstract, and the official code (``TargetLabel.py`` at b289726), which loads a finished patch; how that
    was trained is not in it. Its file name, size and place are those of AdvCLIP (Zhou et al., ACM MM 2023;
    ``advclip.py`` at 25910de), so the objective is theirs. Deviations, and what is ours:

    - The pixels of the patch are optimised themselves, by Adam. AdvCLIP optimises a generator, with a discriminator, a
      term for the neighbourhoods of features, and one for the distance to the clean picture.
    - The patch is learnt and tried on training pairs that the user gives, which should be clean.
    - Classes are those of ``data.zero_shot``, by all of its templates; its pictures are not looked at.

    It needs pictures with captions and the names of classes, and no labels. What it finds is left in the run folder as
    ``target_naming.json``, the patch in the checkpoint. It needs ``trainer.max_epochs=-1`` and
    ``trainer.reload_dataloaders_every_n_epochs=1``; the patch is learnt in the run's precision, without a loss scale,
    so half precision means ``bf16-mixed``.

    Logs: ``target_naming/phase``, ``target_naming/seconds/PHASE``, ``train/loss`` and its parts
    ``train/away_from_picture`` and ``train/away_from_caption``; ``target_naming/shift``, ``target_naming/margin`` and
    ``target_naming/fooled``, shares in [-1, 1].

    Args:
        args: See ``BaseCLIPModule``.
        patch: How the patch is learnt.
        seed: What is drawn from it: the patch's start, and pairs; the seed of ``seed_everything`` unless given.
        kwargs: See ``BaseCLIPModule``; the rate and the other parameters of its optimiser have no effect here.
    """

    is_defence: ClassVar[bool | None] = False

    def __init__(
        self,
        *args: Any,
        patch: PatchOptions = PatchOptions(),  # noqa: B008  # frozen
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # An object would make a checkpoint that is more than tensors and plain data.
        self.hparams.pop("patch", None)
        self.patch_options, self.seed = patch, run_seed(seed)
        self.phases = phase_table(*self.naming_phases(None))
        self.patch: Tensor | None = None
        """``(3, P, P)`` in [0, 1], on the CPU; None before it is learnt."""
        self.shift: ClassShift | None = None
        """What was counted; None before."""
        self._classes = torch.empty(0)

    @property
    def prefix(self) -> str:
        """What stands before the logged keys."""
        return "target_naming"

    @property
    def classnames(self) -> Sequence[str]:
        """The names of the classes among which one is named."""
        return self._class_data().class_prompts.classnames

    def naming_phases(self, then: str | None) -> tuple[LearnPatch, Count]:
        """The two phases of the naming.

        Args:
            then: The name of the phase that follows; None where the run is over.
        """
        options = self.patch_options
        return LearnPatch(options, self.seed), Count(options.counted_pairs, self.seed, then)

    def on_fit_start(self) -> None:
        """Check that there are classes.

        Raises:
            UserMistake: If there are fewer than two.
        """
        if len(self.classnames) < 2:
            raise UserMistake(f"{type(self).__name__} compares classes: give at least two in data.zero_shot")
        super().on_fit_start()

    def select_some(self, batches: int, seed: int) -> int:
        """Stream some pairs, of as many batches at most, and say how many pairs these are."""
        keys = self.data.some_keys(batches * self.data.global_batch_size, seed)
        self.data.select(keys)
        return len(keys)

    def select_reference(self, pairs: int, seed: int) -> None:
        """Stream some pairs once, as they are in the shards, at least one batch."""
        self.data.select(self.data.some_keys(max(pairs, self.data.global_batch_size), seed), in_order=True)

    def embed_classes(self) -> None:
        """Embed the classes as the model is now."""
        with self.evaluating():
            self._classes = self._embed_prompts(self._class_data().class_prompts.prompts)

    def class_cosines(self, features: Tensor) -> Tensor:
        """Features ``(B, D)`` of unit length to cosines ``(B, C)`` with the classes, as they were embedded last."""
        return similarities(features, self._classes)

    def named(self) -> None:
        """Log which class was named, and write it to the run folder."""
        assert self.shift is not None, "it was counted"
        found = self.shift.record()
        for key in ("shift", "margin", "fooled"):
            self.log_now(f"{self.prefix}/{key}", getattr(found, key))
        rank_zero_info(
            f"Of {found.pictures:,} pictures, a universal patch sends {found.shift:+.1%} to {found.target!r} and "
            f"{found.runner_up_shift:+.1%} to {found.runner_up!r}, the next. There is no threshold: a clean model too "
            "has such a class"
        )
        folder = folder_to_write(self.trainer)
        if folder is not None:
            found.write(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the patch and what was counted."""
        super().on_save_checkpoint(checkpoint)
        shift = None if self.shift is None else self.shift.state_dict()
        checkpoint["target_naming"] = {"patch": self.patch, "shift": shift}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with them."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["target_naming"]
        self.patch = state["patch"]
        self.shift = None if state["shift"] is None else ClassShift.of_state(state["shift"])

    def _class_data(self) -> ZeroShotData:
        data = data_of(self.trainer, ZeroShotData)
        if data is None:
            raise UserMistake(
                f"{type(self).__name__} needs a data module with class prompts, such as ImageTextDataModule"
            )
        return data


class LearnPatch(Phase[TargetNaming]):
    """Learns a patch that drives pictures away from their own features and from their captions, wherever they go.

    Args:
        options: How.
        seed: What the patch starts from, and which pairs are drawn.
    """

    def __init__(self, options: PatchOptions, seed: int) -> None:
        super().__init__("patch", options.epochs)
        self.options, self.seed = options, seed
        self._pixels: SoughtPixels | None = None
        self._resumed: Mapping[str, Any] | None = None

    def begin(self, module: TargetNaming) -> None:
        """Start from noise."""
        self._pixels = None

    def select(self, module: TargetNaming, epoch: int) -> None:
        """Some pairs, others in each epoch."""
        module.select_some(self.options.steps, self.seed + epoch)

    def prepare(self, module: TargetNaming) -> None:
        """Make the patch, or take up the one of a run that was stopped."""
        if self._pixels is None:
            size = patch_side(self.options.share, module.encoder.image_size)
            noise = torch.rand(3, size, size, generator=torch.Generator().manual_seed(self.seed))
            self._pixels = SoughtPixels({"patch": noise}, self.options.lr, module.device)
        if self._resumed is not None:
            self._pixels.load_state_dict(self._resumed)
            self._resumed = None

    def step(self, module: TargetNaming, batch: ImageTextBatch, batch_idx: int) -> None:
        """A step of the patch."""
        assert self._pixels is not None, "the phase was prepared"
        mean, std = module.scales
        with module.evaluating():
            images, texts = module(batch)
        patched = module.encode_image(with_patch(batch["image"], (self._pixels.values["patch"] - mean) / std))
        parts = {"away_from_picture": -self._found(images, patched), "away_from_caption": -self._found(patched, texts)}
        loss = parts["away_from_picture"] + self.options.caption_weight * parts["away_from_caption"]
        module.log_losses(loss, len(batch["key"]), **parts)
        self._pixels.step(loss, module.trainer)

    def end(self, module: TargetNaming) -> str:
        """Keep the patch, and count with it."""
        assert self._pixels is not None, "the phase was prepared"
        module.patch = self._pixels.found()["patch"]
        return "count"

    def state_dict(self) -> dict[str, Any]:
        """The patch and its optimiser."""
        return {} if self._pixels is None else self._pixels.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with them."""
        self._pixels, self._resumed = None, state_dict or None

    def _found(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The cross entropy of each row's finding the column of its own number."""
        logits = similarities(rows, columns) / self.options.temperature
        return functional.cross_entropy(logits, torch.arange(len(rows), device=rows.device))


class Count(Phase[TargetNaming]):
    """Counts what the model takes pictures for, with the patch and without. Nothing is learnt.

    Args:
        pairs: Number of pairs whose pictures are counted.
        seed: Seed with which they are drawn.
        then: The phase that comes next; None where the run is over.
    """

    def __init__(self, pairs: int, seed: int, then: str | None) -> None:
        super().__init__("count")
        self.pairs, self.seed, self.then = pairs, seed, then
        self._sums = PassSums()
        self._patch = torch.empty(0)

    def begin(self, module: TargetNaming) -> None:
        """Start with nothing."""
        self._sums = PassSums()

    def select(self, module: TargetNaming, epoch: int) -> None:
        """Some pairs, as they are in the shards."""
        module.select_reference(self.pairs, self.seed)

    def prepare(self, module: TargetNaming) -> None:
        """Put the patch on the device, and embed the classes."""
        assert module.patch is not None, "it was learnt"
        module.embed_classes()
        self._patch = module.patch.to(module.device)

    def repeat(self, module: TargetNaming) -> None:
        """Start with nothing: each picture is counted once."""
        self._sums = PassSums()

    def step(self, module: TargetNaming, batch: ImageTextBatch, batch_idx: int) -> None:
        """Count a batch."""
        mean, std = module.scales
        with module.evaluating():
            clean, patched = (
                module.class_cosines(module.encode_image(pictures)).argmax(dim=1)
                for pictures in (batch["image"], with_patch(batch["image"], (self._patch - mean) / std))
            )
        classes = torch.arange(len(module.classnames), device=clean.device)
        counted = [(of[:, None] == classes).sum(dim=0) for of in (clean, patched)]
        self._sums.add({"clean": counted[0], "patched": counted[1], "fooled": (clean != patched).sum()})

    def end(self, module: TargetNaming) -> str | None:
        """Name the target."""
        sums = self._sums.totals()
        assert module.patch is not None, "it was learnt"
        module.shift = ClassShift(
            tuple(module.classnames), sums["clean"], sums["patched"], int(sums["fooled"]), module.patch
        )
        module.named()
        return self.then

    def state_dict(self) -> dict[str, Any]:
        """The counts so far, of all ranks."""
        return self._sums.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with them."""
        self._sums.load_state_dict(state_dict, rank)
