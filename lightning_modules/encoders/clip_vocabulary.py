"""CLIP's byte-pair vocabulary, which open_clip ships, with the words of captions remembered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache, lru_cache

from open_clip.tokenizer import SimpleTokenizer

# Byte-pair merging of one word takes time quadratic in its length, so that a caption of a megabyte without a space
# would hold up a loader for hours. No token of the vocabulary is as long.
CHARACTERS_PER_TOKEN = 32

_MAX_REMEMBERED = 128
"""Characters of a word or a text that is remembered: longer ones hardly come back, and take the memory of many."""


@cache
def clip_vocabulary() -> SimpleTokenizer:
    """The vocabulary: lower case, with CLIP's start and end token."""
    return SimpleTokenizer()


@cache
def _of_plain_words() -> SimpleTokenizer:
    """The same without the mending of texts, which finds nothing in words of printable ASCII that have no ``&``."""
    plain = copy.copy(clip_vocabulary())
    plain.clean_fn = str.lower
    return plain


@lru_cache(maxsize=1 << 16)
def _of_word(word: str) -> tuple[int, ...]:
    """Tokens of a plain word. Kept, as words come back; ask for short ones."""
    return tuple(_of_plain_words().encode(word))


@lru_cache(maxsize=1 << 16)
def _of_text(text: str) -> tuple[int, ...]:
    """Tokens of any text, kept likewise."""
    return tuple(clip_vocabulary().encode(text))


def _tokens(caption: str) -> Sequence[int]:
    """Tokens of a caption, without start and end: word by word where the mending of texts has no say."""
    if caption.isascii() and caption.isprintable() and "&" not in caption:
        words = caption.split()
        return [token for word in words for token in (_of_word if _is_short(word) else _of_word.__wrapped__)(word)]
    return (_of_text if _is_short(caption) else _of_text.__wrapped__)(caption)


def _is_short(part: str) -> bool:
    return len(part) <= _MAX_REMEMBERED


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
