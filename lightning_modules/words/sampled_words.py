"""The words that similarities depend on, found in some of the pairs."""

from __future__ import annotations

import torch

from ...contracts import UserMistake
from ..phased import PhasedCLIPModule
from .captions import CaptionTokens
from .localisation import similarity_drops
from .words import Words, find_words

_BLOCK = 256
"""Pictures that are encoded at once."""


def words_of_sample(module: PhasedCLIPModule, sampled: int, min_share: float) -> Words:
    """Find the words by masking one token at a time in some pairs, the same on all ranks.

    Args:
        module: The run, whose model is asked.
        sampled: Pairs in which tokens are masked.
        min_share: Least share of these that a word carries.

    Raises:
        UserMistake: If similarities depend on no word.
    """
    tokenize = module.preprocessing.tokenize
    captions = CaptionTokens(tokenize)
    keys = module.data.some_keys(sampled, 0)
    texts = module.data.captions(keys)
    tokens = tokenize(texts)
    with module.evaluating():
        shown = torch.split(module.data.pictures(keys), _BLOCK)
        images = torch.cat([module.encode_image(module.normalised(block)) for block in shown])
        drops = similarity_drops(module.encode_text, images, tokens, captions.special, captions.padding).cpu()
    words = module.agreed(find_words(texts, tokens, drops, tokenize, max(2, round(min_share * len(keys)))))
    if not len(words):
        raise UserMistake(
            f"{type(module).__name__} finds no word on which similarities depend: does model.init_from belong to this "
            "data? If so, lower model.min_word_share"
        )
    return words
