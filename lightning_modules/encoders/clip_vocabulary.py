"""CLIP's byte-pair vocabulary, which open_clip ships, with the words of captions remembered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

from open_clip.tokenizer import SimpleTokenizer

# Byte-pair merging of one word takes time quadratic in its length, so that a caption of a megabyte without a space
# would hold up a loader for hours. No token of the vocabulary is as long.
CHARACTERS_PER_TOKEN = 32


@cache
def clip_vocabulary() -> SimpleTokenizer:
    """The vocabulary: lower case, with CLIP's start and end token."""
    return SimpleTokenizer()


@lru_cache(maxsize=1 << 16)
def _encode(text: str) -> tuple[int, ...]:
    """Tokens of a text, without start and end. Kept, as words come back."""
    return tuple(clip_vocabulary().encode(text))


def _tokens(caption: str) -> list[int]:
    """Tokens of a caption, without start and end: word by word where the vocabulary's mending of texts has no say."""
    plain = caption.isascii() and caption.isprintable() and "&" not in caption
    return [token for part in (caption.split() if plain else [caption]) for token in _encode(part)]


def clip_rows(captions: Sequence[str], context_length: int) -> list[tuple[int, ...]]:
    """The tokens of N captions, start and end included: at most ``context_length`` each, the end token always there.

    A caption is cut to 32 characters a token before it is tokenised. The tokens are those of open_clip's own tokeniser.
    """
    longest = CHARACTERS_PER_TOKEN * context_length
    start, end = clip_vocabulary().sot_token_id, clip_vocabulary().eot_token_id
    return [(start, *_tokens(caption[:longest])[: context_length - 2], end) for caption in captions]


def padded(rows: Sequence[tuple[int, ...]], length: int) -> list[tuple[int, ...]]:
    """Rows of one length, with 0 at their ends."""
    return [row + (0,) * (length - len(row)) for row in rows]
