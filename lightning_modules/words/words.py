"""The words that similarities depend on, any of which may be a backdoor's target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .captions import CaptionTokens
from .localisation import carriers, only, words_of

_EXAMPLES = 32
"""Captions from which the embedding of a word is averaged, at most."""
_SAME = 0.9
"""Tokens are one word where the captions that have both are this share of those that have either."""


@dataclass
class Words:
    """W words, each of one token or several that always come together.

    Attributes:
        tokens: For each word its tokens.
        spelt: For each word how it is written.
        examples: For each word some captions whose similarity to their picture it carries.
    """

    tokens: list[list[int]] = field(default_factory=list)
    spelt: list[str] = field(default_factory=list)
    examples: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def table(self) -> Tensor:
        """``(W, T)`` int64, the tokens of each word, padded with -1."""
        rows = [torch.tensor(tokens) for tokens in self.tokens]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def groups(self, captions: CaptionTokens) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """For each word the indices of the captions that have it."""
        return [np.flatnonzero(captions.having(tokens)) for tokens in self.tokens]

    def embeddings(self, encode: Callable[[Sequence[str]], Tensor]) -> Tensor:
        """What each word means: ``(W, D)``, the mean of its captions' features, brought to unit length again.

        Args:
            encode: N captions to features ``(N, D)`` of unit length.
        """
        means = [encode(examples).mean(dim=0) for examples in self.examples]
        return functional.normalize(torch.stack(means), dim=-1)

    def alone(self, tokenize: Callable[[Sequence[str]], Tensor], captions: CaptionTokens) -> Tensor:
        """Each word with everything else of a caption masked: ``(W, L)`` int64 tokens."""
        first = tokenize([examples[0] for examples in self.examples])
        rows = [
            only(row[None], tokens, captions.special, captions.padding)
            for row, tokens in zip(first, self.tokens, strict=True)
        ]
        return torch.cat(rows)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {"tokens": self.tokens, "spelt": self.spelt, "examples": self.examples}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Words:
        """What gave this state."""
        return cls(**state)


def find_words(
    captions: Sequence[str], tokens: Tensor, drops: Tensor, tokenize: Callable[[Sequence[str]], Tensor], min_pairs: int
) -> Words:
    """Find the words that the similarity of some pairs depends on. One that most captions have separates no pictures.

    Args:
        captions: N captions, drawn at random.
        tokens: Tokens of the captions, ``(N, L)`` int64.
        drops: Drops, ``(N, L)``: what the similarity loses without a token (``similarity_drops``).
        tokenize: The encoder's.
        min_pairs: Least number of these pairs that a word carries.

    Returns:
        The words, the most frequent carrier first.
    """
    rows: dict[int, list[int]] = defaultdict(list)
    for row, own in enumerate(carriers(tokens, drops)):
        for token in own:
            rows[token].append(row)
    having = {token: set((tokens == token).any(dim=1).nonzero()[:, 0].tolist()) for token in rows}
    found = [token for token, own in rows.items() if len(own) >= min_pairs and 2 * len(having[token]) <= len(captions)]
    found.sort(key=lambda token: -len(rows[token]))
    together: list[list[int]] = []
    for token in found:
        for word in together:
            first = having[word[0]]
            if len(first & having[token]) >= _SAME * len(first | having[token]):
                word.append(token)
                break
        else:
            together.append([token])
    spelt = dict(zip(found, words_of(found, captions, tokenize), strict=True))
    words = Words()
    for word in together:
        examples = dict.fromkeys(captions[row] for token in word for row in rows[token])
        words.tokens.append(word)
        words.spelt.append(" ".join(dict.fromkeys(spelt[token] for token in word)))
        words.examples.append(list(examples)[:_EXAMPLES])
    return words


def has_words(tokens: Tensor, table: Tensor) -> Tensor:
    """Which captions have which words.

    Args:
        tokens: Tokens of captions, ``(B, L)`` int64.
        table: Tokens of the words, ``(W, T)`` int64, padded with -1 (``Words.table``).

    Returns:
        ``(B, W)``, whether a caption has any of a word's tokens.
    """
    return (tokens[:, None, :, None] == table[None, :, None, :]).any(dim=3).any(dim=2)
