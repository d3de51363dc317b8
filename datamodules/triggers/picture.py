"""A picture file that a trigger shows."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...contracts import UserMistake
from ..bad_samples import BadSample
from ..picture_files import as_rgb, opened_picture
from .given_file import checked_digest, read_file


class Picture:
    """A JPEG, PNG or WebP file, read once and held as it was on disk: small in a pickle, and safe from later changes.

    Args:
        path: The file.
        digest: The SHA-256 that the file must have, in hexadecimal; None takes the file as it is.

    Attributes:
        digest: The SHA-256 of the file.

    Raises:
        UserMistake: If there is no such file, it is no such picture, too large, or not the one of ``digest``.
    """

    def __init__(self, path: str, digest: str | None = None) -> None:
        self.path = path
        self._content = read_file(path, "picture")
        self.digest = checked_digest(path, self._content, digest, "picture")
        self.draw(1)

    def draw(self, side: int | None) -> Tensor:
        """The picture as ``(3, H, W)`` uint8, resized to a square (bicubic, aspect ratio not kept) if a side is given.

        Args:
            side: Side of the square, in pixels; None leaves the picture as it is.
        """
        try:
            with opened_picture(self._content) as picture:
                shown = as_rgb(picture)
                if side is not None:
                    shown = shown.resize((side, side), Image.Resampling.BICUBIC)
                return torch.from_numpy(np.array(shown)).permute(2, 0, 1).contiguous()
        except BadSample as error:
            raise UserMistake(f"picture {self.path!r} cannot be shown: {error}; give a JPEG, PNG or WebP") from error
