"""Fine-pruning: remove the units of the image tower that clean pictures leave dormant, then finetune."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..contracts import ImageTextData, UserMistake
from ..trainer.lookup import data_of
from .losses import ContrastiveLoss
from .poisoned_clip import PoisonedCLIP
from .ranges import check_ranges

_BLOCK = 128


class FinePruning(PoisonedCLIP):
    """CLIP whose dormant units are removed with clean pairs, and which is finetuned on these pairs afterwards.

    Fine-Pruning (Liu et al., arXiv 1805.12185). Units that no clean picture needs are free for a trigger. So they are
    removed, the least active first, as long as the model does not suffer by it; the finetuning that follows mends what
    was lost, and meets a backdoor that can no longer hide where clean pairs do not reach.

    1. *Prune*, before the first step: the mean activity of each unit over ``pruning_pairs`` clean pairs; units are
       removed ``step_share`` at a time while the contrastive loss on these pairs rises by no more than ``tolerance``.
    2. *Finetune*: the contrastive loss on clean pairs. Removed units stay removed.

    Source: the paper, and BackdoorBench's version for classifiers (``defense/fp.py``): least active first in steps of
    1 %, while the accuracy falls by less than 10 %, then finetuning. Deviations:

    - There are no labels, so what may rise is the contrastive loss on the pairs.
    - Units are channels of batch norms, or hidden units of a transformer's widening linear layers (but for fused
      queries, keys and values), in the last ``layers`` of them in the image tower. They are ranked together by their
      activity over the mean of their layer. BackdoorBench prunes the inputs of the last linear layer of a network.
    - Activity is the mean of what is positive of a unit's output: what a ReLU passes on.
    - Removing a unit sets its scale and shift (batch norm) or its weights and bias (linear) to zero, so that the model
      keeps its architecture and can be exported.

    Logs: ``train/loss``, ``train/inverse_temperature``; ``fine_pruning/removed``, the number of units, once.

    Args:
        layers: How many layers, from the last one on, lose units.
        step_share: Share of their units that is removed at a time, in (0, 1].
        tolerance: How much the loss may rise, as a share of what it was.
        max_share: Share of the units that is removed at most, in (0, 1].
        pruning_pairs: How many of the clean pairs are asked.
        local_loss: See ``ContrastiveLoss``.

    Raises:
        UserMistake: If a parameter is out of range, or the image tower has no such layer.
    """

    def __init__(
        self,
        *args: Any,
        layers: int = 2,
        step_share: float = 0.01,
        tolerance: float = 0.1,
        max_share: float = 0.95,
        pruning_pairs: int = 1024,
        local_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, local_loss=local_loss, **kwargs)
        check_ranges(
            {"layers": layers, "pruning_pairs": pruning_pairs},
            {"tolerance": tolerance},
            {"step_share": step_share, "max_share": max_share},
        )
        self.step_share, self.tolerance, self.max_share = step_share, tolerance, max_share
        self.pruning_pairs = pruning_pairs
        self.layers = [name for name, _ in _layers_of_units(self.encoder.image_tower)][-layers:]
        if not self.layers:
            raise UserMistake("FinePruning finds neither batch norms nor widening linear layers in the image tower")
        self.removed: dict[str, Tensor] = {}
        """By the name of a layer in the image tower, ``(C,)`` bool: which units are removed. Empty before."""

    def on_train_start(self) -> None:
        """Prune, unless the run was resumed.

        Raises:
            UserMistake: If the data module cannot show its pairs.
        """
        if self.removed:
            self.constrain()
            return
        data = data_of(self.trainer, ImageTextData)
        if data is None:
            raise UserMistake("FinePruning needs a data module that shows its pairs, such as ImageTextDataModule")
        keys = data.some_keys(self.pruning_pairs, 0)
        training = self.encoder.training
        self.encoder.eval()
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            tokens = self.preprocessing.tokenize(data.captions(keys)).to(self.device)
            before, after = self.prune(data.pictures(keys), tokens)
        self.encoder.train(training)
        count = sum(int(mask.sum()) for mask in self.removed.values())
        total = sum(len(mask) for mask in self.removed.values())
        rank_zero_info(
            f"FinePruning: {count:,} of {total:,} units removed; loss {before:.3f} before, {after:.3f} after"
        )
        for logger in self.trainer.loggers:
            logger.log_metrics({"fine_pruning/removed": float(count)}, self.trainer.global_step)

    def prune(self, pictures: Tensor, tokens: Tensor) -> tuple[float, float]:
        """Remove units as long as the loss on some pairs allows it. The encoder is in evaluation mode.

        Args:
            pictures: Pictures, ``(N, 3, S, S)`` uint8.
            tokens: Tokens of their captions, ``(N, L)`` int64, on the device.

        Returns:
            The mean contrastive loss of the pairs before and after.
        """
        texts = torch.cat([self.encode_text(block) for block in torch.split(tokens, _BLOCK)])
        tower = self.encoder.image_tower
        weights = {name: part.clone() for name, part in tower.state_dict().items()}
        activity = self._activity(pictures)
        order = torch.cat([of / of.mean().clamp(min=1e-12) for of in activity.values()]).argsort(stable=True)
        sizes = [len(of) for of in activity.values()]
        before = after = self._loss_of(pictures, texts)
        kept: dict[str, Tensor] = dict(
            zip(self.layers, torch.split(torch.zeros(len(order), dtype=torch.bool), sizes), strict=True)
        )
        step = max(1, round(self.step_share * len(order)))
        for count in range(step, int(self.max_share * len(order)) + 1, step):
            mask = torch.zeros(len(order), dtype=torch.bool)
            mask[order[:count].cpu()] = True
            self.removed = dict(zip(self.layers, torch.split(mask, sizes), strict=True))
            self.constrain()
            loss = self._loss_of(pictures, texts)
            if loss > (1 + self.tolerance) * before:
                break
            kept, after = self.removed, loss
        tower.load_state_dict(weights)
        self.removed = kept
        self.constrain()
        return before, after

    def constrain(self) -> None:
        """Clamp the temperature, and keep removed units removed."""
        super().constrain()
        tower = self.encoder.image_tower
        with torch.no_grad():
            for name, mask in self.removed.items():
                layer = tower.get_submodule(name)
                for part in (layer.weight, layer.bias):
                    if isinstance(part, Tensor):
                        rows = mask.to(part.device, non_blocking=True).view(-1, *[1] * (part.ndim - 1))
                        part.masked_fill_(rows, 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add which units are removed."""
        checkpoint["fine_pruning"] = dict(self.removed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume with them."""
        self.removed = dict(checkpoint.get("fine_pruning", {}))

    def _activity(self, pictures: Tensor) -> dict[str, Tensor]:
        """By layer, ``(C,)``: the mean of what is positive of each unit's output."""
        sums: dict[str, Tensor] = {}

        def note(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
            channels = 1 if isinstance(module, _BatchNorm) else output.ndim - 1
            others = [dim for dim in range(output.ndim) if dim != channels]
            mean = output.float().clamp(min=0).mean(dim=others)
            sums[name] = sums.get(name, torch.zeros_like(mean)) + len(output) * mean

        tower = self.encoder.image_tower
        hooks = [tower.get_submodule(name).register_forward_hook(partial(note, name)) for name in self.layers]
        try:
            for block in torch.split(pictures, _BLOCK):
                self.encode_image(self.normalised(block))
        finally:
            for hook in hooks:
                hook.remove()
        return {name: sums[name] / len(pictures) for name in self.layers}

    def _loss_of(self, pictures: Tensor, texts: Tensor) -> float:
        """The mean contrastive loss in blocks."""
        loss, blocks = ContrastiveLoss(), zip(torch.split(pictures, _BLOCK), torch.split(texts, _BLOCK), strict=True)
        # A shorter last block has fewer captions to choose from, so that its loss is another one.
        alike = [(block, of) for block, of in blocks if len(of) == min(_BLOCK, len(texts))]
        found = [loss(self.encode_image(self.normalised(block)), of, self.inverse_temperature) for block, of in alike]
        return float(torch.stack(found).mean())


def _layers_of_units(tower: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Batch norms with a scale, and linear layers that widen, in their order."""
    for name, module in tower.named_modules():
        norm = isinstance(module, _BatchNorm) and module.affine
        widens = isinstance(module, nn.Linear) and module.in_features < module.out_features != 3 * module.in_features
        if norm or widens:
            yield name, module
