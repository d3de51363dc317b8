"""RVPT: visual prompts that keep a frozen model right, and away from what it saw before."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD

from ..contracts import ImageTextData, LabelledBatch, UserMistake, ZeroShotData
from ..trainer.lookup import data_of
from ..trainer.seed import run_seed
from .base import BaseCLIPModule
from .encoders.visual_prompts import MAX_PROMPTS, TokenBlocks, class_tokens, prompted, set_prompts, without_prompts
from .few_shots import few_shots
from .optimisation import known_steps, with_schedule
from .precision import similarities, unit_length
from .ranges import check_ranges


class RVPT(BaseCLIPModule):
    """A poisoned CLIP whose image tower, frozen, gets prompts in its later blocks. It needs a few labelled pictures.

    Repulsive visual prompt tuning (Zhang et al., arXiv 2412.20392). CLIP's features hold far more than a task needs,
    a trigger among it. So blocks of the vision transformer after the first ``first_blocks`` get ``prompt_length``
    trained tokens each, beside those of the picture, which do not leave the block; all else is frozen. They are trained
    to keep the classes apart, and to push what the blocks make of the picture away from what they made of it before:

        L = CE + alpha * mean over blocks l of cos(c_l, c'_l)

    with the cross entropy of the zero-shot prediction, the class token c_l after block l, and c'_l the frozen model's
    without prompts. What is cleaned is the model *with its prompts*: they are part of its checkpoint, and whatever
    reads that, has them; without them it is the poisoned model.

    Source: the paper, as far as it is known here, since its repository has no code: b 50, D 3, alpha 2, SGD with 2e-3
    and a cosine, batches of 32, 50 epochs, 16 pictures a class. Deviations, and what it leaves open:

    - A class is described by all captions of the zero-shot set, averaged, as in an evaluation.
    - The mean is over the blocks that have prompts: before them, the class token is the frozen model's.
    - Prompts begin at random, normal with a standard deviation of 0.02; momentum is 0.9 and weight decay 5e-4, those
      that prompts of CLIP are commonly trained with (CoOp, arXiv 2109.01134).
    - The labelled pictures are the first ``shots`` of each class in a random order of the training set.

    Of the encoders, open_clip's vision transformers and transformers' CLIP can have prompts.

    Logs: ``train/loss`` and its parts, ``train/classification`` and ``train/repelling``, the mean cosine.

    Args:
        prompt_length: Prompts of a block, b; at most 1,024.
        first_blocks: Blocks without prompts, D.
        repelling_weight: Weight of the cosine, alpha; 0 is plain prompt tuning.
        shots: Labelled pictures of each class; None takes all.
        momentum: Momentum of SGD, in [0, 1). The optimiser also takes ``lr`` and ``weight_decay``, but none of AdamW's
            other arguments.
        seed: What prompts and pictures are drawn from; the seed of ``seed_everything`` unless given.

    Raises:
        UserMistake: If a parameter is out of range, or the encoder's image tower can have no prompts or has some.
    """

    def __init__(
        self,
        *args: Any,
        prompt_length: int = 50,
        first_blocks: int = 3,
        repelling_weight: float = 2.0,
        shots: int | None = 16,
        momentum: float = 0.9,
        seed: int | None = None,
        lr: float = 2e-3,
        weight_decay: float = 5e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lr=lr, weight_decay=weight_decay, **kwargs)  # type: ignore[misc]  # they are keywords
        counts = {"prompt_length": prompt_length} | ({} if shots is None else {"shots": shots})
        check_ranges(counts, {"first_blocks": first_blocks, "repelling_weight": repelling_weight})
        if prompt_length > MAX_PROMPTS:
            raise UserMistake(f"model.prompt_length is {prompt_length:,}: at most {MAX_PROMPTS:,} prompts of a block")
        if not 0 <= momentum < 1:
            raise UserMistake(f"model.momentum is {momentum}, not in [0, 1)")
        if self.execution.micro_batch_size is not None:
            raise UserMistake("model.micro_batch_size: RVPT encodes its small batches at once; leave it out")
        self.repelling_weight, self.shots, self.momentum, self.seed = repelling_weight, shots, momentum, run_seed(seed)
        self.encoder.requires_grad_(False)
        blocks = self._blocks(first_blocks)
        draws = torch.Generator().manual_seed(self.seed)
        numbers = range(first_blocks, len(blocks.blocks))
        shape = (prompt_length, blocks.width)
        set_prompts(blocks, {number: 0.02 * torch.randn(shape, generator=draws) for number in numbers})
        self._targets: Tensor | None = None

    def _blocks(self, first_blocks: int) -> TokenBlocks:
        """The blocks of the image tower, more than those that stay without prompts."""
        blocks = self.encoder.token_blocks
        if blocks is None:
            raise UserMistake(
                f"model.encoder {self.hparams['encoder']} has no vision transformer with a class token: RVPT's prompts "
                "need one, such as open_clip:ViT-B-32 or a CLIP of transformers"
            )
        if prompted(blocks):
            raise UserMistake("model.init_from has visual prompts already: RVPT starts from the model without them")
        if first_blocks >= len(blocks.blocks):
            raise UserMistake(
                f"model.first_blocks is {first_blocks}, but the image tower has {len(blocks.blocks)} blocks: none "
                "would have prompts; give a smaller number"
            )
        return blocks

    def setup(self, stage: str) -> None:
        """Draw the labelled pictures that are trained on.

        Raises:
            UserMistake: If a class has none.
        """
        data = data_of(self.trainer, ImageTextData)
        classes = data_of(self.trainer, ZeroShotData)
        if stage != "fit" or data is None or classes is None or self.shots is None:
            return
        self.check_batches(data.batch_names)
        keys = few_shots(data, classes.class_prompts.classnames, self.shots, self.seed)
        data.select(keys)
        rank_zero_info(f"RVPT trains on {len(keys):,} labelled pictures, at most {self.shots} of each class")

    def check_batches(self, names: Container[str]) -> None:
        """Check whether a batch has labels; captions are not needed.

        Raises:
            UserMistake: If it has none.
        """
        if "label" not in names:
            raise UserMistake("RVPT needs labelled pictures: use LabelledDataModule as data")

    def configure_optimizers(self) -> Any:
        """SGD of the prompts, with a cosine, in steps."""
        prompts = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = SGD(prompts, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        scheduler = with_schedule(optimizer, self.warmup_steps, known_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Embed the classes, which no step changes."""
        data = data_of(self.trainer, ZeroShotData)
        if data is None:
            raise UserMistake("RVPT needs data.zero_shot: the classes that labels are indices into")
        self._targets = self._embed_prompts(data.class_prompts.prompts)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """The cross entropy of a batch, and how near its class tokens are to the frozen model's."""
        if self._targets is None:
            raise RuntimeError("the classes are embedded when training starts")
        self.encoder.eval()
        images, blocks = batch["image"].to(self.encoder.logit_scale.dtype), self.encoder.token_blocks
        if blocks is None:
            raise RuntimeError("the encoder has lost its blocks")
        with torch.no_grad(), without_prompts(blocks):
            _, before = self._class_tokens(images, blocks)
        features, after = self._class_tokens(images, blocks)
        logits = similarities(unit_length(features), self._targets, self.inverse_temperature)
        classification = functional.cross_entropy(logits, batch["label"])
        pairs = zip(after, before, strict=True)
        cosines = [functional.cosine_similarity(now.float(), then.float(), dim=-1).mean() for now, then in pairs]
        repelling = torch.stack(cosines).mean()
        loss: Tensor = classification + self.repelling_weight * repelling
        self.log_losses(loss, len(batch["key"]), classification=classification, repelling=repelling)
        return loss

    def _class_tokens(self, images: Tensor, blocks: TokenBlocks) -> tuple[Tensor, list[Tensor]]:
        """Features ``(B, D)``, not normalised, and the class tokens ``(B, W)`` after each block with prompts."""
        with class_tokens([block for block, _ in prompted(blocks)], blocks.batch_first) as tokens:
            features = self.encoder.encode_image(images)
        return features, tokens
