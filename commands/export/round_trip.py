"""The proof that an exported folder holds the same model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...lightning_modules.encoders import Encoder

LARGEST_DIFFERENCE = 1e-5
"""Between embeddings of unit length, in single precision."""
_PICTURES = 4
_CAPTIONS = ("a photo of a dog", "2 red cars, parked!", "It's a small house.", "an aerial view " * 40)


class ReadBack(NamedTuple):
    """A model as the exported folder gives it."""

    encode_image: Callable[[Tensor], Tensor]
    """Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)``."""
    encode_captions: Callable[[Sequence[str]], Tensor]
    """B captions to features ``(B, D)``."""


def check_round_trip(encoder: Encoder, back: ReadBack) -> float:
    """See that embeddings are the same, of random pictures and of captions of every length.

    Args:
        encoder: The model that was exported, on the CPU.
        back: The one that was read back.

    Returns:
        The largest difference between two embeddings of unit length.

    Raises:
        RuntimeError: If they are not the same, which is never the user's mistake.
    """
    side = encoder.image_size
    pictures = torch.randn(_PICTURES, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = (
            (encoder.encode_image(pictures), back.encode_image(pictures)),
            (encoder.encode_text(encoder.tokenizer(_CAPTIONS)), back.encode_captions(_CAPTIONS)),
        )
        difference = max(
            float((functional.normalize(one.float(), dim=-1) - functional.normalize(other.float(), dim=-1)).abs().max())
            for one, other in pairs
        )
    if not difference <= LARGEST_DIFFERENCE:
        raise RuntimeError(f"the exported model is another one: its embeddings differ by {difference:.1e}")
    return difference
