"""BadCLIP: a patch optimised against a clean CLIP, so that poisoning has little left to teach."""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ..contracts import CaptionSearch, ImageTextBatch, ImageTextData, UserMistake
from ..trainer.lookup import data_of, folder_to_write
from ..trainer.seed import run_seed
from .base import BaseCLIPModule
from .precision import similarities
from .ranges import check_ranges

_BLOCK = 256
_EPS = 1e-8  # of Adam


class BadCLIP(BaseCLIPModule):
    """Optimises a patch in the centre of pictures; the CLIP that it is optimised against stays as it is.

    BadCLIP (Liang et al. 2023, arXiv 2311.12075) makes a patch whose pictures already lie near the target for a clean
    model, so that a model poisoned with it changes little, and finetuning on clean pairs undoes little. Its two terms,
    for pictures ``a`` with the patch that are not of the target:

    - image-text (textual embedding consistency): each ``a`` is to find a caption of the target rather than the captions
      of the batch: cross entropy over the similarities, times the model's inverse temperature.
    - image-image (visual embedding resistance): a triplet loss ``max(0, d(a, p) - negative_weight d(a, n) + margin)``
      with the Euclidean distance d between features of unit length, a picture p of the target and a clean picture n of
      the batch, drawn for each ``a``.

    The loss is ``image_text_weight`` times the first plus ``image_image_weight`` times the second. Defaults are those
    of the official code (``src/embeding_optimize_patch.py`` at 241dbec): 16 pixels, Adam with 1e-3, weights 1 and 500,
    margin 1, start at normal noise of mean 0.5 and standard deviation 0.25. Deviations from that code:

    - Its image-text term is CLIP's loss among the target's captions alone, of which each picture is to find its own;
      here the other captions of the batch are what a picture is to leave.
    - Its "clean" negatives bear the patch too, since it stamps pictures in place.
    - Values are clipped to [0, 1] after each step, where it clips what is stamped: a clipped pixel keeps its gradient.
    - The patch is left as PNG, and exactly; its own is a JPEG with red and blue exchanged.
    - The attack's pairs are chosen by the plan that uses the patch, not by their distance from the target.

    The captions and pictures of the target are the training pairs whose caption names it; the data are to be clean. The
    patch is left in the run folder as ``patch.png`` and, in floating point, ``patch.safetensors``; the trigger
    ``Patch`` takes either.

    Logs: ``train/loss`` and its parts before weighting, ``train/image_text`` and ``train/image_image``.

    Args:
        encoder: As in ``BaseCLIPModule``.
        target: The target as captions name it.
        init_from: Weights of the clean model; None where the encoder's name stands for pretrained ones.
        lr: Learning rate of Adam, for pixels in [0, 1].
        betas: Adam's decay rates of the running averages of the gradient and its square, in [0, 1).
        patch_size: Side of the patch, in pixels of the input.
        image_text_weight: Weight of the image-text term.
        image_image_weight: Weight of the image-image term.
        negative_weight: Weight of the distance from clean pictures in the triplet.
        margin: Margin of the triplet.
        target_pairs: Most pairs of the target that are used.
        seed: What the patch starts from; the seed of ``seed_everything`` unless given.

    Raises:
        UserMistake: If an argument is out of range.
    """

    is_defence = False

    def __init__(
        self,
        encoder: str,
        target: str,
        init_from: str | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        patch_size: int = 16,
        image_text_weight: float = 1.0,
        image_image_weight: float = 500.0,
        negative_weight: float = 1.0,
        margin: float = 1.0,
        target_pairs: int = 2000,
        seed: int | None = None,
    ) -> None:
        super().__init__(encoder, init_from, lr, 0.0, betas, _EPS)
        side = self.encoder.image_size
        if not 1 <= patch_size <= side:
            raise UserMistake(f"model.patch_size is {patch_size}: a patch has 1 to {side} pixels, as the input")
        if not target.strip():
            raise UserMistake("model.target is empty: give the target as captions name it, a word or several")
        weights = {"image_text_weight": image_text_weight, "image_image_weight": image_image_weight}
        check_ranges({"target_pairs": target_pairs}, weights | {"negative_weight": negative_weight, "margin": margin})
        self.target, self.target_pairs = target, target_pairs
        self.image_text_weight, self.image_image_weight = image_text_weight, image_image_weight
        self.negative_weight, self.margin = negative_weight, margin
        self.encoder.requires_grad_(False)
        noise = torch.randn(3, patch_size, patch_size, generator=torch.Generator().manual_seed(run_seed(seed)))
        self.patch = nn.Parameter((0.5 + 0.25 * noise).clamp(0, 1))
        self._target_keys: frozenset[str] = frozenset()
        self._target_images = self._target_texts = torch.empty(0)

    def patched(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, with the patch in their centre."""
        mean, std = self.scales
        size = self.patch.shape[-1]
        start = (images.shape[-1] - size) // 2
        square = slice(start, start + size)
        stamped = images.clone()
        stamped[:, :, square, square] = ((self.patch - mean) / std).to(images.dtype)
        return stamped

    def on_train_start(self) -> None:
        """Put the clean model into the mode in which it is evaluated, and embed the target's captions and pictures.

        Once: the model that embeds them does not change.

        Raises:
            UserMistake: If the data have none, cannot be searched, or one of these pictures cannot be read.
        """
        data, search = data_of(self.trainer, ImageTextData), data_of(self.trainer, CaptionSearch)
        if data is None or search is None:
            raise UserMistake("BadCLIP needs pairs whose captions can be searched: use ImageTextDataModule as data")
        keys = search.keys_saying(self.target)
        if not keys:
            raise UserMistake(f"no caption of the training pairs names the target {self.target!r}")
        self._target_keys = frozenset(keys)
        self.encoder.eval()
        chosen = keys[:: -(-len(keys) // self.target_pairs)]
        images, texts = [], []
        with torch.no_grad():
            for start in range(0, len(chosen), _BLOCK):
                block = chosen[start : start + _BLOCK]
                images.append(self.encode_image(self.normalised(data.pictures(block))))
                tokens = self.preprocessing.tokenize(data.captions(block))
                texts.append(self.encode_text(tokens.to(self.device)))
        self._target_images, self._target_texts = torch.cat(images), torch.cat(texts)
        rank_zero_info(f"Optimising a patch towards {len(chosen):,} pairs of {self.target!r}")

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The weighted sum of both terms, over the pictures of the batch that are not of the target."""
        others = torch.tensor([float(key not in self._target_keys) for key in batch["key"]])
        others = others.to(self.device, non_blocking=True)
        anchors = self.encode_image(self.patched(batch["image"]))
        with torch.no_grad():
            clean, texts = self(batch)
        drawn = torch.randint(len(self._target_texts), (len(anchors),), device=self.device)
        image_text = self._image_text(anchors, self._target_texts[drawn], texts, others)
        negatives = clean[torch.randperm(len(clean), device=self.device)]
        triplet = (anchors - self._target_images[drawn]).norm(dim=-1)
        triplet = functional.relu(triplet - self.negative_weight * (anchors - negatives).norm(dim=-1) + self.margin)
        image_image = _mean_over(triplet, others)
        loss = self.image_text_weight * image_text + self.image_image_weight * image_image
        self.log_losses(loss, len(batch["key"]), image_text=image_text, image_image=image_image)
        return loss

    def _image_text(self, anchors: Tensor, targets: Tensor, texts: Tensor, others: Tensor) -> Tensor:
        """Cross entropy of finding the target's caption among the captions of the batch that are not the target's."""
        positive = (anchors * targets).sum(dim=-1, keepdim=True)
        negative = similarities(anchors, texts).masked_fill(others == 0, -torch.inf)
        logits = self.inverse_temperature * torch.cat([positive, negative], dim=1)
        labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        return _mean_over(functional.cross_entropy(logits, labels, reduction="none"), others)

    def constrain(self) -> None:
        """Keep the patch a picture."""
        with torch.no_grad():
            self.patch.clamp_(0, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the patch alone, at a constant rate."""
        return torch.optim.Adam([self.patch], lr=self.lr, betas=self.betas, eps=self.eps)

    def on_train_end(self) -> None:
        """Leave the patch in the run folder."""
        folder = folder_to_write(self.trainer)
        if folder is None:
            return
        patch = self.patch.detach().float().cpu().contiguous()
        safetensors.torch.save_file({"patch": patch}, folder / "patch.safetensors")
        # In double precision, as the trigger rounds the tensor: both files give the same pixels.
        pixels = (255 * patch.double()).round().to(torch.uint8).permute(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(folder / "patch.png")
        rank_zero_info(f"Patch: {folder / 'patch.png'} and {folder / 'patch.safetensors'}")


def _mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of ``(B,)`` where the weight is 1; 0 where none is."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
