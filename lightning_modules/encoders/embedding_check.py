"""Check that a model embeds pictures and captions: finite features that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...contracts import UserMistake
from ...files.reading import reading
from .base import Encoder
from .messages import one_line

_TEXTS = ("a photo of a dog", "two ships at sea", "cat", "", "zyx \N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-4E2D}\x00")
"""The last ones have what no vocabulary has: a tokenizer may fail on it, or have a token for it."""
_ALIKE = 1e-6
"""Distance of normalised embeddings. Those of the worst models that were trained differ by a thousand times that."""


@torch.no_grad()
def check_embeddings(encoder: Encoder, source: Path) -> None:
    """Check that a few pictures, and a few captions, have embeddings, finite ones, and not the same.

    Configs can ask for what makes all of them equal: an end token in front of every caption, a variance that is never
    reached; and weights can be all zero.

    Args:
        encoder: With its weights, on the CPU. Its mode and the random numbers stay as they are.
        source: Where they are from, for messages.

    Raises:
        UserMistake: If they have not.
    """
    side = encoder.image_size
    ramp = torch.linspace(-1, 1, side).expand(1, 3, side, side)
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with reading("tokenizer of", source):
        tokens = torch.unique(encoder.tokenizer(_TEXTS), dim=0)
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        _check(lambda: encoder.encode_image(torch.cat([ramp, torch.zeros_like(ramp), noise])), "pictures", source)
        _check(lambda: encoder.encode_text(tokens), "captions", source)
    finally:
        for module, mode in modes:
            module.training = mode
    if not torch.isfinite(encoder.logit_scale.exp()).all():
        raise UserMistake(f"{source}: its temperature is not finite: logit_scale is {encoder.logit_scale.item():g}")


def _check(embed: Callable[[], Tensor], what: str, source: Path) -> None:
    try:
        found = normalize(embed().float())
    except Exception as error:  # whatever a foreign config makes of a model
        raise UserMistake(f"{source}: the model cannot embed {what}: {one_line(error)}") from error
    if not torch.isfinite(found).all():
        raise UserMistake(f"{source}: the embeddings of {what} are not finite: its config or its weights are broken")
    if len(found) > 1 and (found - found[0]).abs().max() < _ALIKE:
        raise UserMistake(
            f"{source}: all {what} have the same embedding, so the model separates nothing: its config, its weights "
            "or its tokenizer is not what it was trained with"
        )
