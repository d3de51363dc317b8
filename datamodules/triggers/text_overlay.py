"""Text: a word written across the picture (Singh, Croce and Hein 2024, arXiv 2412.00727)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import ImageFont
from torch import Tensor

from ...contracts import UserMistake
from .fixed_pattern import FixedPattern, Stamp

POSITIONS = ("top", "center", "bottom")
MAX_LETTERS = 64
MAX_HEIGHT = 4096
"""No input is larger; the letters are drawn before the input's size is known."""


class TextOverlay(FixedPattern):
    """Blends the pixels of a written word with a colour c: ``round((1 - alpha) x + alpha c)``; the others stay.

    One of the structured triggers that Perturb and Recover (PAR) found hard to clean: red letters with weight 0.5, as
    in the official code, where the height of the line is drawn once from three. Deviations: the position is an
    argument; the letters are those of Pillow's built-in bitmap font, enlarged without smoothing, so that no font file
    is needed and the same pixels are drawn everywhere; that code takes a font of the operating system. The bitmap font
    has the letters of Latin-1.

    Args:
        text: One line.
        height: Height of the line, in pixels of the input, from the top of its tallest letter to the bottom of its
            lowest. The width follows.
        alpha: Weight of the colour, in (0, 1].
        colour: Red, green and blue in 0..255.
        position: ``top``, ``center`` or ``bottom``; the line is centred from left to right.

    Raises:
        UserMistake: If an argument is out of range or the text has nothing to draw.
    """

    def __init__(
        self,
        text: str = "Watermarked",
        height: int = 20,
        alpha: float = 0.5,
        colour: tuple[int, int, int] = (255, 0, 0),
        position: str = "center",
    ) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise UserMistake(f"alpha is {alpha}; the text's weight must be above 0 and at most 1")
        if not 1 <= height <= MAX_HEIGHT:
            raise UserMistake(f"height is {height}; a line of text has 1 to {MAX_HEIGHT:,} pixels")
        if position not in POSITIONS:
            raise UserMistake(f"there is no position {position!r} of TextOverlay; choose from {', '.join(POSITIONS)}")
        if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
            raise UserMistake(f"colour is {list(colour)}; it must be red, green and blue in 0..255")
        self.text = text
        self.height = height
        self.alpha = alpha
        self.colour = tuple(colour)
        self.position = position
        self._ink = _enlarged(_ink(text), height)

    def check(self, image_size: int) -> None:
        """As in ``Trigger``: the line has to fit."""
        height, width = self._ink.shape
        if width > image_size or height > image_size:
            raise UserMistake(
                f"the text {self.text!r} is {width} x {height} pixels, larger than the {image_size} x {image_size} "
                "input; make it shorter or lower"
            )

    def draw(self, size: int) -> Stamp:
        """The colour times alpha where there is ink."""
        height, width = self._ink.shape
        top = {"top": 0, "center": (size - height) // 2, "bottom": size - height}[self.position]
        left = (size - width) // 2
        mask = torch.zeros(size, size)
        mask[top : top + height, left : left + width] = self._ink
        colour = torch.tensor(self.colour, dtype=torch.float32)[:, None, None]
        return Stamp((1 - self.alpha * mask).expand(3, size, size), self.alpha * colour * mask)


def _ink(text: str) -> Tensor:
    """The letters as the bitmap font has them, without empty rows and columns around them: ``(H, W)`` bool."""
    if len(text) > MAX_LETTERS or not text.isprintable() or any(ord(letter) > 255 for letter in text):
        raise UserMistake(f"text {text!r:.80} is not a line of at most {MAX_LETTERS} letters of Latin-1")
    mask = ImageFont.load_default_imagefont().getmask(text, mode="1")
    width, height = mask.size
    pixels = torch.from_numpy(np.frombuffer(bytes(mask), dtype=np.uint8).reshape(height, width) > 0)
    rows, columns = pixels.any(1).nonzero(), pixels.any(0).nonzero()
    if not len(rows):
        raise UserMistake(f"text {text!r} has nothing to draw")
    return pixels[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]


def _enlarged(ink: Tensor, height: int) -> Tensor:
    """The letters at this height, each pixel taken from the nearest one: ``(height, W)`` bool."""
    width = max(1, round(ink.shape[1] * height / ink.shape[0]))
    rows = (2 * torch.arange(height) + 1) * ink.shape[0] // (2 * height)
    columns = (2 * torch.arange(width) + 1) * ink.shape[1] // (2 * width)
    return ink[rows][:, columns]
