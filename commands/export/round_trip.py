"""The proof that an exported folder holds the same model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ...lightning_modules.encoders import Encoder
from ...lightning_modules.encoders.weights import bare_name

MAX_DIFFERENCE = 1e-5
"""Between embeddings of unit length, in single precision."""
_PICTURES = 4
_CAPTIONS = ("a photo of a dog", "2 red cars, parked!", "It's a small house.", "an aerial view " * 40)


class ReadBack(NamedTuple):
    """A model as the exported folder gives it."""

    encode_image: Callable[[Tensor], Tensor]
    """Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)``."""
    encode_captions: Callable[[Sequence[str]], Tensor]
    """B captions to features ``(B, D)``."""
    tensors: Mapping[str, Tensor]
    """What the library has read, temperature and bias of the logits too, which no embedding shows."""
    preparation: tuple[int, tuple[float, ...], tuple[float, ...]]
    """Side of the square in pixels, mean and standard deviation per channel, as the folder says."""


def read_back(encoder: Encoder) -> ReadBack:
    """What was read, where it was read as an encoder of this package."""
    return ReadBack(
        encoder.encode_image,
        lambda captions: encoder.encode_text(encoder.tokenizer(captions)),
        {bare_name(name): tensor for name, tensor in encoder.state_dict().items()},
        (encoder.image_size, encoder.mean, encoder.std),
    )


def check_round_trip(encoder: Encoder, tensors: Mapping[str, Tensor], back: ReadBack) -> float:
    """Check that all is the same that a library uses: every tensor, how pictures are prepared, and the embeddings.

    Embeddings are those of random pictures and of captions of every length.

    Args:
        encoder: The model that was exported, on the CPU.
        tensors: Its tensors, as the library that reads the folder names them.
        back: The one that was read back.

    Returns:
        The largest difference between two embeddings of unit length.

    Raises:
        RuntimeError: If they are not the same, which is never the user's mistake.
    """
    _check_same(tensors, back.tensors)
    side = encoder.image_size
    wanted = (side, tuple(encoder.mean), tuple(encoder.std))
    if not torch.allclose(_numbers(wanted), _numbers(back.preparation)):
        raise RuntimeError(f"the exported model prepares pictures as {back.preparation}, not as {wanted}")
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
    if not difference <= MAX_DIFFERENCE:
        raise RuntimeError(f"the exported model is another one: its embeddings differ by {difference:.1e}")
    return difference


def _check_same(tensors: Mapping[str, Tensor], back: Mapping[str, Tensor]) -> None:
    """Check that every tensor is there, none beside them, and that their numbers are the same."""
    lost, new = sorted(tensors.keys() - back.keys()), sorted(back.keys() - tensors.keys())
    others = [
        name
        for name, tensor in tensors.items()
        if name in back and not torch.equal(tensor.reshape(-1), back[name].to(tensor.dtype).reshape(-1))
    ]
    if lost or new or others:
        raise RuntimeError(f"the exported model is another one: lacks {lost}, adds {new}, changes {others}")


def _numbers(preparation: tuple[int, tuple[float, ...], tuple[float, ...]]) -> Tensor:
    side, mean, std = preparation
    return torch.tensor([side, *mean, *std], dtype=torch.float64)
