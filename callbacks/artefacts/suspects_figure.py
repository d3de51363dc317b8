"""A contact sheet of suspected pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from ...files.printable import printable
from .figures import DPI

_COLUMNS = 6
_TILE, _GAP, _HEADING, _LINE = 128, 14, 44, 13  # dots
_LINES, _LETTERS = 3, 20  # of a caption
_LETTER = _TILE / _LETTERS
_COLOURS = {"poisoned": "#b3001b", "suspicious": "#c77700"}


class Suspect(NamedTuple):
    """A pair on the sheet."""

    key: str
    caption: str
    score: float
    decision: str


def contact_sheet(pictures: Tensor, suspects: Sequence[Suspect], words: Sequence[str]) -> Figure:
    """Show suspected pairs: the picture, framed by its decision, and its caption with the compromised words marked.

    Args:
        pictures: Pictures, ``(N, 3, S, S)`` uint8, N at least 1.
        suspects: What goes with each.
        words: Compromised words; they are marked wherever they stand, in any case.

    Returns:
        The figure; pictures are enlarged without interpolation.

    Raises:
        ValueError: If there is not one picture for each suspect.
    """
    if len(pictures) != len(suspects) or not suspects:
        raise ValueError(f"{len(pictures)} pictures for {len(suspects)} suspects")
    rows = math.ceil(len(suspects) / _COLUMNS)
    cell = _TILE + _LINES * _LINE + 2 * _GAP
    width, height = _GAP + _COLUMNS * (_TILE + _GAP), _HEADING + rows * cell
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    marked = {part for word in words for part in word.lower().split()}
    # Captions are other people's text: a dollar sign must not start a formula.
    with rc_context({"text.parse_math": False}):
        heading = (
            f"Most suspicious pairs. Red frame: unlearnt; orange: left out. Marked: {', '.join(words) or 'nothing'}"
        )
        _text(figure, _GAP / width, 1 - _HEADING / 2 / height, printable(heading)[:120], size=9)
        for index, (picture, suspect) in enumerate(
            zip(pictures.permute(0, 2, 3, 1).cpu().numpy(), suspects, strict=True)
        ):
            left = _GAP + index % _COLUMNS * (_TILE + _GAP)
            top = height - _HEADING - index // _COLUMNS * cell
            axes = figure.add_axes((left / width, (top - _TILE) / height, _TILE / width, _TILE / height))
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(color=_COLOURS.get(suspect.decision, "black"), linewidth=2.5)
            for line, letters in enumerate(_wrapped(suspect.caption)):
                for start, word, mark in _pieces(letters, marked):
                    x, y = left + start * _LETTER, top - _TILE - 5 - (line + 0.5) * _LINE
                    colour = _COLOURS["poisoned"] if mark else "black"
                    _text(figure, x / width, y / height, word, size=7.4, color=colour, weight="bold" if mark else None)
    return figure


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x, y, text, va="center", family="monospace", **{"color": "black", **style})


def _wrapped(caption: str) -> list[str]:
    """A caption in lines of at most so many letters; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in printable(caption[:500]).split():
        for piece in re.findall(rf".{{1,{_LETTERS}}}", word):
            if len(lines[-1]) + len(piece) + bool(lines[-1]) > _LETTERS:
                lines.append("")
            lines[-1] += (" " if lines[-1] else "") + piece
    if len(lines) > _LINES:
        lines = lines[:_LINES]
        lines[-1] = lines[-1][: _LETTERS - 1] + "…"
    return lines


def _pieces(line: str, marked: set[str]) -> list[tuple[int, str, bool]]:
    """The words of a line: where each starts, what it is, and whether it is marked."""
    return [(found.start(), found[0], found[0].lower() in marked) for found in re.finditer(r"\w+|[^\w\s]+", line)]
