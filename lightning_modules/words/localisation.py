"""Locate the tokens of a caption that carry its similarity to the picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_BLOCK = 512
"""Captions that are encoded at once."""


def similarity_drops(
    encode_text: Callable[[Tensor], Tensor], images: Tensor, tokens: Tensor, special: Tensor, padding: int
) -> Tensor:
    """What the similarity of each pair loses when one token at a time is masked.

    A masked token is taken out and the rest moves up, since not every tokeniser has a token that stands for nothing.

    Args:
        encode_text: Captions ``(B, L)`` int64 to features ``(B, D)`` of unit length.
        images: Features of the images, ``(N, D)``, of unit length.
        tokens: Tokens, ``(N, L)`` int64.
        special: Tokens that are not masked, ``(T,)`` int64.
        padding: The token that follows a caption.

    Returns:
        ``(N, L)``; minus infinity at the special tokens.
    """
    device = images.device
    rows, positions = (~torch.isin(tokens, special)).nonzero(as_tuple=True)
    kept = torch.arange(tokens.shape[1]).expand(len(rows), -1)
    kept = kept + (kept >= positions[:, None]).long()
    padded = torch.cat([tokens, tokens.new_full((len(tokens), 1), padding)], dim=1)
    masked = padded[rows].gather(1, kept)
    whole = _similarities(encode_text, images, tokens, torch.arange(len(tokens)))
    drops = torch.full(tokens.shape, -torch.inf, device=device, dtype=whole.dtype)
    drops[rows.to(device), positions.to(device)] = whole[rows.to(device)] - _similarities(
        encode_text, images, masked, rows
    )
    return drops


def _similarities(encode_text: Callable[[Tensor], Tensor], images: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
    """Similarity of picture ``rows[i]`` with caption i."""
    parts = [
        (images[of.to(images.device)] * encode_text(block.to(images.device))).sum(dim=1)
        for block, of in zip(torch.split(tokens, _BLOCK), torch.split(rows, _BLOCK), strict=True)
    ]
    return torch.cat(parts) if parts else images.new_zeros(0)


def carriers(tokens: Tensor, drops: Tensor) -> list[set[int]]:
    """For each caption the tokens without which its similarity falls most.

    Args:
        tokens: Tokens, ``(N, L)`` int64.
        drops: Drops in similarity, ``(N, L)``, as ``similarity_drops`` gives them.

    Returns:
        N sets: one token, several where they tie, none where nothing makes the similarity fall.
    """
    greatest = drops.amax(dim=1, keepdim=True)
    carrying = ((drops >= greatest) & (greatest > 0)).to(tokens.device)
    return [set(row[own].tolist()) for row, own in zip(tokens, carrying, strict=True)]


def words_of(tokens: Sequence[int], captions: Sequence[str], tokenize: Callable[[Sequence[str]], Tensor]) -> list[str]:
    """For each token, the word of some captions that it stands in most often; its number where there is none."""
    words = Counter(word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption.lower()))
    spelt = list(words)
    if not spelt:
        return [str(token) for token in tokens]
    ids = tokenize(spelt)
    return [
        max(
            (word for word, row in zip(spelt, ids, strict=True) if bool((row == token).any())),
            key=lambda word: words[word],
            default=str(token),
        )
        for token in tokens
    ]


def only(tokens: Tensor, wanted: Sequence[int], special: Tensor, padding: int) -> Tensor:
    """Captions with everything masked but some tokens.

    Args:
        tokens: Tokens, ``(N, L)`` int64.
        wanted: Tokens to keep.
        special: Tokens that stay too, ``(T,)`` int64.
        padding: The token that follows a caption.

    Returns:
        ``(N, L)`` int64.
    """
    keep = torch.isin(tokens, torch.cat([special, torch.tensor(list(wanted), dtype=special.dtype)]))
    # A stable sort moves what is kept to the front, in its order.
    order = (~keep).long().argsort(dim=1, stable=True)
    return torch.where(keep.gather(1, order), tokens.gather(1, order), padding)
