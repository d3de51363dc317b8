"""An inverted trigger in the run folder."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from ...files.writing import open_whole

PICTURE = "trigger.png"
"""The pattern, its opacity the mask."""
_TENSORS = "trigger.safetensors"


def write_trigger(folder: Path, mask: Tensor, pattern: Tensor) -> None:
    """Leave a trigger as ``trigger.png`` and, exactly, as ``trigger.safetensors``.

    Args:
        folder: The run folder.
        mask: Mask, ``(S, S)``, or ``(3, S, S)`` for each channel: opacity in [0, 1]. The picture has their mean.
        pattern: Colours of the trigger, ``(3, S, S)``, in [0, 1].
    """
    mask, pattern = (part.float().cpu().contiguous() for part in (mask, pattern))
    with open_whole(folder / _TENSORS) as stream:
        stream.write(safetensors.torch.save({"mask": mask, "pattern": pattern}))
    opacity = mask.mean(dim=0) if mask.ndim == 3 else mask
    pixels = (255 * torch.cat([pattern, opacity[None]])).round().to(torch.uint8).permute(1, 2, 0)
    with open_whole(folder / PICTURE) as stream:
        Image.fromarray(pixels.contiguous().numpy()).save(stream, "PNG")
