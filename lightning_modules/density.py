"""Local density of each training picture's embedding, as a Lightning module that predicts."""

from __future__ import annotations

import torch

from ..contracts import ImageTextBatch, ImageTextData, PredictOutputs, UserMistake
from ..trainer.lookup import data_of
from ..trainer.seed import run_seed
from .base import BaseCLIPModule
from .detection import LocalDensity
from .ranges import check_reference

_BLOCK = 256


class LocalDensityCLIP(BaseCLIPModule):
    """A CLIP that ranks training pairs by the local density of their pictures' embeddings; nothing is trained.

    Huang et al. (arXiv 2502.01385): see ``LocalDensity``. ``untrigger predict`` writes ``k_distance``, ``slof`` and
    ``dao`` of each pair beside its similarity; higher is sparser, and more suspicious where their finding holds. It
    supposes that captions differ: among a handful of classes, each is a dense cluster of its own, and so are poisoned
    pairs.

    One forward pass for each pair and the reference; memory holds the reference alone.

    Args:
        encoder: As in ``BaseCLIPModule``.
        init_from: Weights of the model; None where the encoder's name stands for pretrained ones.
        neighbours: k.
        reference_size: Pairs among which neighbours are looked for, drawn at random; all where there are no more.
        seed: What they are drawn from; the seed of ``seed_everything`` unless given.
        channels_last: As in ``BaseCLIPModule``.
        compile: As in ``BaseCLIPModule``.

    Raises:
        UserMistake: If there are not more pairs in the reference than neighbours.
    """

    def __init__(
        self,
        encoder: str,
        init_from: str | None = None,
        neighbours: int = 16,
        reference_size: int = 1024,
        seed: int | None = None,
        channels_last: bool = False,
        compile: bool | str = False,
    ) -> None:
        super().__init__(encoder, init_from, channels_last=channels_last, compile=compile)
        check_reference(neighbours, reference_size)
        self.neighbours, self.reference_size, self.seed = neighbours, reference_size, run_seed(seed)
        self._density: LocalDensity | None = None
        self._indices: dict[str, int] = {}

    def on_predict_start(self) -> None:
        """Embed the reference."""
        data = data_of(self.trainer, ImageTextData)
        if data is None:
            raise UserMistake("LocalDensityCLIP needs pictures with captions: use ImageTextDataModule as data")
        keys = data.some_keys(self.reference_size, self.seed)
        self._indices = {key: index for index, key in enumerate(keys)}
        blocks = (keys[start : start + _BLOCK] for start in range(0, len(keys), _BLOCK))
        with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
            features = [self.encode_image(self.normalised(data.pictures(block))) for block in blocks]
        self._density = LocalDensity(torch.cat(features), self.neighbours)

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> PredictOutputs:
        """Similarity and density of each pair."""
        assert self._density is not None, "made when predicting starts"
        images, texts = self(batch)
        indices = [self._indices.get(key, -1) for key in batch["key"]]
        own = torch.tensor(indices, dtype=torch.int64).to(images.device, non_blocking=True)
        scores = self._density(images, own)._asdict()
        return {"key": batch["key"], "similarity": (images * texts).sum(dim=-1), "scores": scores}
