"""The phase that inverts the trigger of the named target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure

from ...contracts import ImageTextBatch
from ..phased import Phase
from .options import InversionOptions
from .sought import SoughtPixels
from .state import InverTuneState


class Invert(Phase[InverTuneState]):
    """Seeks the mask and the pattern that send clean pictures of other classes to the target, and change them little.

    Args:
        options: How.
        seed: Seed of the pattern's start and of the draws.
    """

    def __init__(self, options: InversionOptions, seed: int) -> None:
        super().__init__("invert", options.epochs)
        self.options, self.seed = options, seed
        self._pixels: SoughtPixels | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._targets = torch.empty(0)
        self._label = 0

    def begin(self, module: InverTuneState) -> None:
        """Start from a mask of ones, and from noise."""
        self._pixels = None

    def select(self, module: InverTuneState, epoch: int) -> None:
        """Some pairs, others in each epoch, whose captions do not say the target."""
        module.select_others(self.options.steps, self.seed + epoch)

    def prepare(self, module: InverTuneState) -> None:
        """Embed classes and pictures of the target, and make what is sought, or take it up again."""
        module.embed_classes()
        self._label = module.classnames.index(module.target)
        self._targets = module.embed_target(self.options.target_pairs, self.seed)
        if self._pixels is None:
            side = module.encoder.image_size
            noise = torch.rand(3, side, side, generator=torch.Generator().manual_seed(self.seed))
            start = {"mask": torch.ones(3, side, side), "pattern": noise}
            self._pixels = SoughtPixels(start, self.options.lr, module.device)
        if self._resumed is not None:
            self._pixels.load_state_dict(self._resumed)
            self._resumed = None

    def step(self, module: InverTuneState, batch: ImageTextBatch, batch_idx: int) -> None:
        """A step of mask and pattern."""
        assert self._pixels is not None, "the phase was prepared"
        # Drawn by the number of the step, so that a run which was resumed draws the same.
        draws = torch.Generator().manual_seed(((self.seed << 32) + self._pixels.steps) % (1 << 63))
        drawn = torch.randint(max(len(self._targets), 1), (len(batch["key"]),), generator=draws)
        aligned = self._targets[drawn.to(module.device, non_blocking=True)] if len(self._targets) else None
        loss, parts = self._loss(module, batch["image"], aligned, **self._pixels.values)
        module.log_losses(loss, len(batch["key"]), **parts)
        self._pixels.step(loss, module.trainer)

    def end(self, module: InverTuneState) -> str:
        """Keep the trigger, and look for the neurons that it needs."""
        assert self._pixels is not None, "the phase was prepared"
        found = self._pixels.found()
        module.keep_trigger(found["mask"], found["pattern"])
        return "locate"

    def state_dict(self) -> dict[str, Any]:
        """What is sought, and its optimiser."""
        return {} if self._pixels is None else self._pixels.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with them."""
        self._pixels, self._resumed = None, state_dict or None

    def _loss(
        self, module: InverTuneState, images: Tensor, aligned: Tensor | None, mask: Tensor, pattern: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The four terms, weighted and each by itself."""
        options = self.options
        mean, std = module.scales
        clean = images.float() * std + mean
        triggered = (1 - mask) * clean + mask * pattern
        features = module.encode_image((triggered - mean) / std)
        logits = module.class_cosines(features) / options.temperature
        labels = torch.full((len(features),), self._label, device=features.device)
        parts = {"target": functional.cross_entropy(logits, labels), "mask": mask.sum()}
        with torch.autocast(images.device.type, enabled=False):
            similarity = structural_similarity_index_measure(triggered, clean, data_range=1.0)
        assert isinstance(similarity, Tensor), "no full image was asked for"
        parts["dissimilarity"] = 1 - similarity
        if aligned is not None:
            parts["alignment"] = (features - aligned).norm()
        weights = {
            "target": options.target_weight,
            "alignment": options.alignment_weight,
            "dissimilarity": options.similarity_weight,
            "mask": options.mask_weight,
        }
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum(), parts
