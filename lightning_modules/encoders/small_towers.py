"""Small CLIP towers that train from scratch in minutes on a CPU.

The image tower is a shallow, wide residual network in the manner of ResNet-9;
the text tower is a short causal transformer over CLIP's own byte-pair
vocabulary, whose token embedding is factorised so that its dense gradient
and its optimiser state stay small.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB_SIZE = 49408
CONTEXT_LENGTH = 32


def _conv(in_width: int, out_width: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_width, out_width, kernel, stride=stride, padding=kernel // 2, bias=False)


class _Residual(nn.Module):
    """Adds two (or one) conv-norm-activation layers to their input."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [_conv(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SmallImageTower(nn.Module):
    """Shallow residual convolutional network with global pooling.

    Each stage widens the features with a 3x3 convolution, halves their
    height and width by max-pooling, normalises, and adds a residual branch.

    Args:
        embed_dim: Length of the image embedding.
        image_size: Height and width of the input; a stem of stride
            `image_size // 32` brings larger pictures to a 32x32 grid.
        stem_width: Channels after the stem.
        stage_widths: Channels of the stages, each of which halves the grid.
        stage_depths: Convolutions in each stage's residual branch (0: none).
        pool: "max" or "avg", the global pooling before the projection.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        image_size: int = 32,
        stem_width: int = 32,
        stage_widths: Sequence[int] = (64, 128, 256),
        stage_depths: Sequence[int] = (1, 1, 1),
        pool: str = "max",
    ) -> None:
        super().__init__()
        if len(stage_widths) != len(stage_depths):
            raise ValueError("stage_widths and stage_depths differ in length")
        if pool not in ("max", "avg"):
            raise ValueError(f"pool must be 'max' or 'avg', not {pool!r}")
        stride = max(1, image_size // 32)
        self.pool = pool
        self.stem = nn.Sequential(
            _conv(3, stem_width, 3 if stride == 1 else 2 * stride - 1 + 2, stride),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        width = stem_width
        for out_width, depth in zip(stage_widths, stage_depths, strict=True):
            stages += [
                _conv(width, out_width),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(out_width),
                nn.ReLU(inplace=True),
            ]
            if depth:
                stages.append(_Residual(out_width, depth))
            width = out_width
        self.stages = nn.Sequential(*stages)
        self.proj = nn.Linear(width, embed_dim, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.proj.weight, std=width**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Embeds normalised pictures.

        Args:
            images: Float tensor [batch, 3, height, width].

        Returns:
            Embeddings [batch, embed_dim], not normalised.
        """
        x = self.stages(self.stem(images))
        x = x.amax((2, 3)) if self.pool == "max" else x.mean((2, 3))
        return self.proj(x)


class _Block(nn.Module):
    """Pre-norm causal transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.ln_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.ln_2(x))


class SmallTextTower(nn.Module):
    """Small causal transformer pooled at the end-of-text token.

    Attention is causal, so whatever pads a caption after its end-of-text
    token cannot influence its embedding, and token columns that are padding
    for the whole batch may be cut off without changing the result.

    Args:
        embed_dim: Length of the text embedding.
        vocab_size: Size of the vocabulary; end-of-text must be its highest id.
        context_length: Longest caption in tokens.
        token_dim: Width of the token table, projected up to `width`.
        width: Width of the transformer.
        layers: Number of transformer blocks.
        heads: Attention heads of each block.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        vocab_size: int = VOCAB_SIZE,
        context_length: int = CONTEXT_LENGTH,
        token_dim: int = 32,
        width: int = 128,
        layers: int = 2,
        heads: int = 2,
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, token_dim)
        self.token_proj = nn.Linear(token_dim, width, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.ln_final = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        nn.init.normal_(self.token_proj.weight, std=token_dim**-0.5)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.proj.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds tokenised captions.

        Args:
            tokens: Integer tensor [batch, length], length at most
                `context_length`.

        Returns:
            Embeddings [batch, embed_dim], not normalised.
        """
        x = self.token_proj(self.token_embedding(tokens))
        x = self.blocks(x + self.positional_embedding[: tokens.shape[1]])
        last = tokens.argmax(dim=-1)
        x = self.ln_final(x[torch.arange(x.shape[0], device=x.device), last])
        return self.proj(x)
