"""Figures drawn from tensors: pure functions, without a display and without global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ...files.printable import printable

DPI = 100
"""Dots per inch of the figures: a tile of the gallery is a whole number of dots per pixel when saved with it."""

_TILE = 128  # dots, about; pictures larger than that are shown as they are
_GAP = 6
_HEADING = 30
_LINE = 16
_LINES = 3
_DOTS_PER_LETTER = 8


_SSIM_SIDE = 11  # the width of its window


class Distortion(NamedTuple):
    """How far triggered pictures are from the clean ones: means over pictures."""

    l2: float
    """The L2 norm of the difference, for pictures in [0, 1]."""
    psnr: float
    """The peak signal-to-noise ratio, in dB; infinite where nothing has changed."""
    ssim: float
    """The structural similarity (Wang et al. 2004, windows of 11 pixels); not a number for smaller pictures."""


def distortion(clean: Tensor, triggered: Tensor) -> Distortion:
    """Measure what a trigger does to pictures.

    Args:
        clean: Clean pictures, ``(N, 3, S, S)`` uint8.
        triggered: The same pictures with the trigger, as ``clean``.
    """
    difference = (triggered.int() - clean.int()) / 255
    norm = difference.flatten(1).norm(dim=1).mean()
    pictures = triggered.float(), clean.float()
    psnr = peak_signal_noise_ratio(*pictures, data_range=255.0, dim=(1, 2, 3))
    ssim = torch.tensor(torch.nan)
    if clean.shape[-1] >= _SSIM_SIDE:
        similarity = structural_similarity_index_measure(*pictures, data_range=255.0)
        assert isinstance(similarity, Tensor), "a tuple only with the options that ask for one"
        ssim = similarity
    return Distortion(float(norm), float(psnr), float(ssim))


def trigger_gallery(clean: Tensor, triggered: Mapping[str, Tensor], captions: Sequence[str] | None = None) -> Figure:
    """Show what triggers do to pictures: the clean ones, then for each attack the triggered ones and the difference.

    The absolute difference is amplified by the largest whole number that clips no more than 2 % of what differs. The
    heading of an attack has its `Distortion`.

    Args:
        clean: Clean pictures, ``(N, 3, S, S)`` uint8, N at least 1.
        triggered: By the name of an attack, the same pictures with its trigger, as ``clean``.
        captions: N captions below the clean pictures, in up to three lines.

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
    l2, psnr, ssim = distortion(clean, triggered)
    figures = f"mean L2 distance {l2:.2f}, mean PSNR {psnr:.1f} dB"
    figures += f", mean SSIM {ssim:.3f}" if math.isfinite(ssim) else ""
    # A few large differences must not leave the others in the dark.
    changed = difference[difference > 0]
    factor = max(1, 255 // int(changed.float().quantile(0.98))) if len(changed) else 1
    amplified = (difference * factor).clamp_(max=255).to(torch.uint8)
    return [
        (f"Triggered by {name} ({figures})", triggered),
        (f"Difference{f' x {factor}' if factor > 1 else ''} (black: unchanged)", amplified),
    ]


def _grid(rows: Sequence[tuple[str, Tensor]], captions: Sequence[str] | None) -> Figure:
    count, side = len(rows[0][1]), rows[0][1].shape[-1]
    tile = side * max(1, round(_TILE / side))
    texts = [_lines(caption, tile // _DOTS_PER_LETTER) for caption in captions or ()]
    below = _GAP + _LINE * max(map(len, texts)) if texts else 0
    # A heading is about 70 letters wide, whatever the number of pictures.
    width = max(_GAP + count * (tile + _GAP), 70 * _DOTS_PER_LETTER)
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
                if row == 0 and texts:
                    middle, start = (left + tile / 2) / width, (top - _GAP / 2) / height
                    figure.text(middle, start, "\n".join(texts[column]), ha="center", va="top", color="black")
            top -= _GAP + (below if row == 0 else 0)
    return figure


def _lines(text: str, letters: int) -> list[str]:
    lines = textwrap.wrap(printable(text), letters)
    if len(lines) > _LINES:
        lines[_LINES - 1 :] = [printable(" ".join(lines[_LINES - 1 :]), letters)]
    return lines
