"""Encoders with weights of their own, and checkpoints of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from untrigger.lightning_modules.encoders import Encoder, build_encoder


def save_checkpoint(encoder: Encoder, name: str, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    torch.save({"state_dict": tensors, "hyper_parameters": {"encoder": name}, "loops": {}}, path)
    return str(path)


def trained(name: str) -> Encoder:
    """An encoder whose numbers, batch norm's too, are not those that it starts with."""
    torch.manual_seed(3)
    encoder = build_encoder(name)
    encoder.encode_image(torch.randn(4, 3, encoder.image_size, encoder.image_size))
    with torch.no_grad():
        for tensor in encoder.parameters():
            tensor.add_(0.02 * torch.randn(tensor.shape))
    return encoder.eval()


def contiguous(encoder: Encoder) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
