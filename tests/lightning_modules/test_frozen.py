"""A frozen copy answers as the model did, whatever becomes of the model."""

from __future__ import annotations

import torch
from torch import nn

from untrigger.lightning_modules.encoders import build_encoder
from untrigger.lightning_modules.frozen import FrozenEncoder

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.manual_seed(0))


def test_a_copy_is_no_part_of_what_holds_it_and_stays_what_it_was() -> None:
    encoder = build_encoder("small:nano-32").eval()
    tokens = encoder.tokenizer(["a star", "a ring"])
    with torch.no_grad():
        images, texts = encoder.encode_image(IMAGES), encoder.encode_text(tokens)
    holder = nn.Module()
    holder.frozen = FrozenEncoder(encoder.train())
    assert not list(holder.parameters())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    for found, features in ((holder.frozen.encode_image(IMAGES), images), (holder.frozen.encode_text(tokens), texts)):
        torch.testing.assert_close(found, features / features.norm(dim=1, keepdim=True))
        assert not found.requires_grad


def test_a_copy_takes_other_weights_and_gives_them_back() -> None:
    one, other = (build_encoder("small:nano-32") for _ in range(2))
    frozen = FrozenEncoder(one, other.state_dict())
    assert frozen.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in frozen.state_dict().items())
    assert any(not torch.equal(tensor, one.state_dict()[name]) for name, tensor in frozen.state_dict().items())
