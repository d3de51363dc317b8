"""A picture file that a trigger shows."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...contracts import UserMistake
from ..picture_files import FORMATS, MAX_PIXELS

MAX_BYTES = 32 * 2**20


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
        self._content = self._read()
        self.digest = sha256(self._content).hexdigest()
        if digest is not None and digest != self.digest:
            raise UserMistake(
                f"picture {path!r} is not the file that the trigger was made with: its SHA-256 starts with "
                f"{self.digest[:12]}, not {str(digest)[:12]}; restore that file"
            )
        self.draw(1)

    def draw(self, side: int) -> Tensor:
        """The picture resized to a square (bicubic, aspect ratio not kept): ``(3, side, side)`` uint8."""
        try:
            with Image.open(io.BytesIO(self._content), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserMistake(
                        f"picture {self.path!r} has {image.width} x {image.height} pixels, "
                        f"more than {MAX_PIXELS // 10**6} million; make it smaller"
                    )
                # By way of RGBA, because PIL warns when a palette with transparency is made RGB at once.
                square = image.convert("RGBA").convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        except UserMistake:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserMistake(f"picture {self.path!r} cannot be read as JPEG, PNG or WebP") from error
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()

    def _read(self) -> bytes:
        file = Path(self.path)
        try:
            if not file.is_file():
                raise UserMistake(f"picture {self.path!r} is not a file; give the path of a JPEG, PNG or WebP")
            if file.stat().st_size > MAX_BYTES:
                raise UserMistake(f"picture {self.path!r} is larger than {MAX_BYTES // 2**20} MiB; make it smaller")
            return file.read_bytes()
        except OSError as error:
            raise UserMistake(f"picture {self.path!r} cannot be read: {error.strerror}") from error
