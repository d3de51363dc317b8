"""Figures drawn from tensors: pure functions, without a display and without global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

DPI = 100
"""Dots per inch of the figures: a tile of the gallery is a whole number of dots per pixel when saved with it."""

_TILE = 128  # dots, about; pictures larger than that are shown as they are
_GAP = 6
_HEADING = 30
_CAPTION = 20
_DOTS_PER_LETTER = 8


def trigger_gallery(clean: Tensor, triggered: Mapping[str, Tensor], captions: Sequence[str] | None = None) -> Figure:
    """Show what triggers do to pictures: the clean ones, then for each attack the triggered ones and the difference.

    The absolute difference is amplified by a whole number, the largest that clips nothing. The heading of an attack
    has the mean over pictures of the L2 norm of the difference, for pictures in [0, 1], and of the peak signal-to-noise
    ratio.

    Args:
        clean: ``(N, 3, S, S)`` uint8, N at least 1.
        triggered: By the name of an attack, the same pictures with its trigger, as ``clean``.
        captions: N captions below the clean pictures.

    Returns:
        The figure; pictures are enlarged without interpolation.

    Raises:
        ValueError: If the shapes or the number of captions differ.
    """
    if captions is not None and len(captions) != len(clean):
        raise ValueError(f"{len(captions)} captions for {len(clean)} pictures")
    rows = [("Clean", clean)]
    for name, pictures in triggered.items():
        if pictures.shape != clean.shape:
            raise ValueError(f"pictures under {name} are {tuple(pictures.shape)}, clean ones {tuple(clean.shape)}")
        rows += _attack_rows(name, clean, pictures)
    return _grid(rows, captions)


def _attack_rows(name: str, clean: Tensor, triggered: Tensor) -> list[tuple[str, Tensor]]:
    difference = (triggered.int() - clean.int()).abs()
    norm = (difference / 255).flatten(1).norm(dim=1).mean()
    psnr = peak_signal_noise_ratio(triggered.float(), clean.float(), data_range=255.0, dim=(1, 2, 3))
    factor = 255 // max(1, int(difference.max()))
    return [
        (f"Triggered by {name} (mean L2 distance {norm:.2f}, mean PSNR {psnr:.1f} dB)", triggered),
        (f"Difference{f' x {factor}' if factor > 1 else ''} (black: unchanged)", (difference * factor).to(torch.uint8)),
    ]


def _grid(rows: Sequence[tuple[str, Tensor]], captions: Sequence[str] | None) -> Figure:
    count, side = len(rows[0][1]), rows[0][1].shape[-1]
    tile = side * max(1, round(_TILE / side))
    below = _CAPTION if captions is not None else 0
    # A heading is about 60 letters wide, whatever the number of pictures.
    width = max(_GAP + count * (tile + _GAP), 60 * _DOTS_PER_LETTER)
    height = len(rows) * (_HEADING + tile + _GAP) + below
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    top = height
    # Names and captions are other people's text: a dollar sign must not start a formula.
    with rc_context({"text.parse_math": False}):
        for row, (heading, pictures) in enumerate(rows):
            figure.text(_GAP / width, (top - _HEADING / 2) / height, heading, va="center", color="black")
            top -= _HEADING + tile
            for column, picture in enumerate(pictures.permute(0, 2, 3, 1).cpu().numpy()):
                left = _GAP + column * (tile + _GAP)
                axes = figure.add_axes((left / width, top / height, tile / width, tile / height))
                axes.imshow(picture, interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                if row == 0 and captions is not None:
                    text = _shorten(captions[column], tile // _DOTS_PER_LETTER)
                    middle = (left + tile / 2) / width
                    figure.text(middle, (top - below / 2) / height, text, ha="center", va="center", color="black")
            top -= _GAP + (below if row == 0 else 0)
    return figure


def _shorten(text: str, letters: int) -> str:
    # Fonts have no glyph for control characters.
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
