"""A small convolutional CLIP that trains from scratch on a CPU in minutes, offline."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import UserMistake
from .base import Encoder
from .clip_vocabulary import clip_rows, clip_vocabulary, padded
from .description import described_encoder
from .messages import one_line
from .small_towers import SmallImageTower, SmallTextTower
from .weights import load_weights

_BASE: dict[str, dict[str, Any]] = {
    "image": {"embed_dim": 128, "stem_width": 24, "stage_widths": (48, 96, 192), "stage_depths": (1, 1, 1)},
    "text": {"embed_dim": 128, "token_dim": 32, "width": 128, "layers": 2, "heads": 2},
}
_NANO: dict[str, dict[str, Any]] = {
    "image": {"embed_dim": 32, "stem_width": 8, "stage_widths": (16, 32, 32), "stage_depths": (0, 0, 1)},
    "text": {"embed_dim": 32, "token_dim": 8, "width": 32, "layers": 1, "heads": 2},
}
PRESETS = {"nano-32": (_NANO, 32), "base-32": (_BASE, 32), "base-64": (_BASE, 64)}


class SmallTokenizer:
    """CLIP's byte-pair encoding (open_clip ships the vocabulary), cut to the longest caption of a call.

    Attention is causal, so tokens after the end token change nothing and are not worth computing.

    Args:
        context_length: Most tokens of a caption, start and end included.
    """

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length
        self.vocab_size: int = clip_vocabulary().vocab_size

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """N captions to ``(N, L)`` int64, padded with 0; a caption that is too long keeps its end token."""
        rows = clip_rows(captions, self.context_length)
        return torch.tensor(padded(rows, max(map(len, rows), default=0)), dtype=torch.int64)


class SmallCLIPEncoder(Encoder):
    """Residual convolutions for pictures of 32 or 64 pixels and a short causal transformer for captions.

    Args:
        name: ``base-32``, ``base-64`` or ``nano-32`` (for tests), or a folder that ``untrigger export`` has made.
        pretrained: Whether to load the weights of a folder.

    Attributes:
        preset: The name of the preset.

    Raises:
        UserMistake: If there is no such preset, or the folder holds no small encoder.
    """

    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    context_length = 32

    def __init__(self, name: str, pretrained: bool = True) -> None:
        super().__init__()
        folder = Path(name).expanduser()
        from_folder = name not in PRESETS and folder.is_dir()
        if from_folder:
            name = described_encoder(folder).removeprefix("small:")
        if name not in PRESETS:
            close = difflib.get_close_matches(name, PRESETS, n=1)
            hint = f"; did you mean small:{close[0]}?" if close else ""
            raise UserMistake(
                f"unknown encoder small:{one_line(name)}; there are {', '.join(f'small:{p}' for p in PRESETS)}{hint}"
            )
        self.preset = name
        preset, self.image_size = PRESETS[name]
        self.tokenizer = SmallTokenizer(self.context_length)
        self.visual = SmallImageTower(image_size=self.image_size, **preset["image"])
        self.text = SmallTextTower(
            vocab_size=self.tokenizer.vocab_size, context_length=self.context_length, **preset["text"]
        )
        # CLIP's start, a temperature of 0.07.
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        # The layout in which a CPU convolves fastest; pictures arrive in it.
        self.visual.to(memory_format=torch.channels_last)
        if from_folder and pretrained:
            load_weights(self, str(folder))

    @property
    def image_tower(self) -> nn.Module:
        """The residual network with its projection."""
        return self.visual

    @property
    def embedding_dim(self) -> int:
        """Width of the joint space."""
        return self.visual.embed_dim

    def encode_image(self, images: Tensor) -> Tensor:
        """See ``Encoder``."""
        features: Tensor = self.visual(images)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """See ``Encoder``."""
        features: Tensor = self.text(tokens)
        return features
