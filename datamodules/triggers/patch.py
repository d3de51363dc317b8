"""A patch from a file: optimised, as BadCLIP's, or of anyone's making."""

from __future__ import annotations

from collections.abc import Sequence

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...contracts import UserMistake
from .given_file import checked_digest, read_file
from .picture import Picture
from .placed_patch import PlacedPatch

TENSOR = "patch"
"""The name of the tensor in a ``.safetensors`` file."""


class Patch(PlacedPatch):
    """Replaces a square of each picture by a patch from a file, pixel by pixel: nothing is resized.

    This is how the patch that the module ``BadCLIP`` optimises is put on pictures (Liang et al. 2023, arXiv
    2311.12075: 16 pixels of 224, in the centre). A file that is resized to the patch is ``BadNet``'s pattern
    ``picture``.

    Args:
        file: A square JPEG, PNG or WebP, or a ``.safetensors`` file whose tensor ``patch`` is ``(3, side, side)``
            float in [0, 1], rounded to 8 bits, or uint8.
        place: As in ``BadNet``.
        sha256: SHA-256 that the file must have; None takes the file as it is and records it here.
        seed: What random positions are drawn from.

    Raises:
        UserMistake: If the file cannot be had or is no square patch, or there is no such place.
    """

    def __init__(
        self,
        file: str,
        place: str | tuple[int, int] = "center",
        sha256: str | None = None,
        seed: int = 0,
    ) -> None:
        if file.endswith(".safetensors"):
            content = read_file(file, "patch")
            self.sha256 = checked_digest(file, content, sha256, "patch")
            self._patch = _from_tensor(file, content)
        else:
            picture = Picture(file, sha256)
            self.sha256 = picture.digest
            self._patch = picture.draw(None)
            if self._patch.shape[1] != self._patch.shape[2]:
                raise UserMistake(f"patch {file!r} is {tuple(self._patch.shape[1:])} pixels, not a square")
        super().__init__(self._patch.shape[-1], place, seed)
        self.file = file

    def patches(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """The patch of all pictures."""
        return self._patch


def _from_tensor(file: str, content: bytes) -> Tensor:
    try:
        patch = safetensors.torch.load(content).get(TENSOR)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserMistake(f"patch {file!r} cannot be read as safetensors") from error
    if patch is None or patch.ndim != 3 or patch.shape[0] != 3 or patch.shape[1] != patch.shape[2]:
        raise UserMistake(f"patch {file!r} has no tensor {TENSOR!r} of the shape (3, side, side)")
    if patch.dtype == torch.uint8:
        return patch
    if not patch.is_floating_point() or not ((patch >= 0) & (patch <= 1)).all():
        raise UserMistake(f"patch {file!r} is neither uint8 nor float in [0, 1]")
    return (255 * patch.double()).round().to(torch.uint8)
