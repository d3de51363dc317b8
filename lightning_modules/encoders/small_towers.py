"""The towers of the small CLIP: a shallow residual network and a short transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_GRID = 32
"""Side of the feature grid after the stem, in cells; a larger input is brought to it by the stem's stride."""


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class _Residual(nn.Module):
    """Adds convolutions with batch norm and ReLU to their input."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [_convolution(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.layers(features)
        return features + changed


class SmallImageTower(nn.Module):
    """A shallow, wide residual network in the manner of ResNet-9, with global max pooling.

    Each stage widens the features by a 3 x 3 convolution, halves the grid by max pooling, and adds a residual branch.
    Few, wide layers suit a CPU: the same operations in more layers take longer.

    Args:
        image_size: Side of the input square in pixels, a multiple of 32.
        embed_dim: Width D of the embedding.
        stem_width: Channels after the stem.
        stage_widths: Channels of each stage.
        stage_depths: Convolutions in the residual branch of each stage; 0 for none.
    """

    def __init__(
        self,
        image_size: int,
        embed_dim: int,
        stem_width: int,
        stage_widths: Sequence[int],
        stage_depths: Sequence[int],
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        stride = image_size // _GRID
        self.stem = nn.Sequential(
            _convolution(3, stem_width, 2 * stride + 1, stride), nn.BatchNorm2d(stem_width), nn.ReLU(inplace=True)
        )
        stages: list[nn.Module] = []
        width = stem_width
        for wider, depth in zip(stage_widths, stage_depths, strict=True):
            stages += [_convolution(width, wider), nn.MaxPool2d(2), nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]
            if depth:
                stages.append(_Residual(wider, depth))
            width = wider
        self.stages = nn.Sequential(*stages)
        self.projection = nn.Linear(width, embed_dim, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, to ``(B, D)``, not normalised."""
        features = self.stages(self.stem(images)).amax((2, 3))
        embedded: Tensor = self.projection(features)
        return embedded


class _Block(nn.Module):
    """A causal transformer block with the norms in front, as in CLIP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        heads = self.attention(self.norm_1(tokens)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: for captions this short the backward pass of the fused CPU kernel is slower.
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(dim=-1).to(value.dtype) @ value
        tokens = tokens + self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        changed: Tensor = self.mlp(self.norm_2(tokens))
        return tokens + changed


class SmallTextTower(nn.Module):
    """A short causal transformer, read at the end token.

    Attention is causal, so what pads a caption after its end token does not matter. The token embedding is factorised
    (ALBERT, arXiv 1909.11942), which keeps its gradient and optimiser state small under CLIP's whole vocabulary.

    Args:
        embed_dim: Width D of the embedding.
        vocab_size: Tokens; the end token has the largest id.
        context_length: Most tokens of a caption.
        token_dim: Width of the token table.
        width: Width of the transformer.
        layers: Number of blocks.
        heads: Attention heads of each block.
    """

    def __init__(
        self,
        embed_dim: int,
        vocab_size: int,
        context_length: int,
        token_dim: int,
        width: int,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, token_dim)
        self.token_projection = nn.Linear(token_dim, width, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        nn.init.normal_(self.token_projection.weight, std=token_dim**-0.5)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, L)`` int64, L at most the context length, to ``(B, D)``, not normalised."""
        embedded = self.token_projection(self.token_embedding(tokens)) + self.positional_embedding[: tokens.shape[1]]
        mixed = self.blocks(embedded)
        rows = torch.arange(len(tokens), device=tokens.device)
        projected: Tensor = self.projection(self.norm(mixed[rows, tokens.argmax(dim=-1)]))
        return projected
