"""The shortest loops that do the same work, which the stream and the training are measured against."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import IterableDataset, get_worker_info

from untrigger.contracts import Preprocessing
from untrigger.lightning_modules.encoders import Encoder
from untrigger.lightning_modules.losses import ContrastiveLoss, SelfSupervisedLoss

Batch = dict[str, Tensor]
"""Of an ``ImageTextBatch``, the tensors."""


class BareLoop(IterableDataset):  # type: ignore[type-arg]
    """What anyone would write: read a tar from front to back, decode, resize, crop, tokenise, stack."""

    def __init__(self, shards: list[str], asked: Preprocessing, batch_size: int, draft: bool) -> None:
        self.shards, self.asked, self.batch_size, self.draft = shards, asked, batch_size, draft

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        mine = self.shards[info.id :: info.num_workers] if info else self.shards
        pictures, captions = [], []
        for shard in mine:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    data = tar.extractfile(member).read()  # type: ignore[union-attr]
                    if member.name.endswith(".txt"):
                        captions.append(data.decode())
                    elif member.name.endswith(".jpg"):
                        pictures.append(self.picture(data))
                    if len(pictures) == len(captions) == self.batch_size:
                        stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
                        yield stacked, self.asked.tokenize(captions)
                        pictures, captions = [], []

    def picture(self, data: bytes) -> np.ndarray:
        """Decode, resize the short side, crop the centre."""
        size = self.asked.image_size
        picture = Image.open(BytesIO(data))
        if self.draft:
            picture.draft("RGB", (size, size))
        picture = picture.convert("RGB")
        if picture.size != (size, size):
            scale = size / min(picture.size)
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.BICUBIC)
            left, top = (picture.width - size) // 2, (picture.height - size) // 2
            picture = picture.crop((left, top, left + size, top + size))
        return np.asarray(picture)


def bare_training(
    loss_of: Callable[[Encoder, Batch], Tensor], encoder: Encoder, batch: Batch, batch_size: int, steps: int
) -> float:
    """Samples per second of a loop over tensors in memory, from the second step on."""
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, fused=True)
    encoder.train()
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        rows = torch.randint(len(batch["image"]), (batch_size,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(encoder, {name: values[rows] for name, values in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return steps * batch_size / (time.perf_counter() - started)


def contrastive(encoder: Encoder, batch: Batch) -> Tensor:
    """What PoisonedCLIP computes."""
    images, texts = _images(encoder, batch["image"]), _texts(encoder, batch["tokens"])
    loss: Tensor = ContrastiveLoss()(images, texts, encoder.logit_scale.exp())
    return loss


def cleanclip(encoder: Encoder, batch: Batch) -> Tensor:
    """What CleanCLIP computes: pictures, captions and a view of each, in four passes, and three losses."""
    images, texts = _images(encoder, batch["image"]), _texts(encoder, batch["tokens"])
    image_views, text_views = _images(encoder, batch["image_view"]), _texts(encoder, batch["tokens_view"])
    scale, within = encoder.logit_scale.exp(), SelfSupervisedLoss()
    loss: Tensor = ContrastiveLoss()(images, texts, scale)
    return loss + (within(images, image_views, scale) + within(texts, text_views, scale)) / 2


def _images(encoder: Encoder, images: Tensor) -> Tensor:
    return functional.normalize(encoder.encode_image(images).float(), dim=-1)


def _texts(encoder: Encoder, tokens: Tensor) -> Tensor:
    return functional.normalize(encoder.encode_text(tokens).float(), dim=-1)
