"""The style of the report's figures, and their output as SVG in a page, or PNG and PDF for a paper."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...files.printable import printable

INK = "#010203"
"""The colour of text and axes: black on paper, the colour of the text around it in a page (`to_svg`)."""
CLEAN, TRIGGERED, TARGET = "#2e86ab", "#d1495b", "#e0a02b"
"""The colours of clean pictures, triggered ones and the target class, in every figure."""
COLOURS = ("#3a9d6e", "#8a63b8", "#e08e2b", "#2e86ab", "#c2528b", "#8c6d46", "#5f8f8f", "#9aa33a", "#6b7fd7", "#b8504a")
"""For what has no colour of its own, such as defences; distinguishable on white and on near black."""
MARKERS = "sD^vPX*hp<"

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names are other people's text: a dollar sign must not start a formula
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text in a paper's PDF stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "untrigger",
}
_PANEL = (2.6, 2.1)  # inches: two beside each other are as wide as a figure, which a phone shows without scrolling
_DOTS_PER_INCH = {"png": 200, "pdf": 300, "svg": 110}  # of what is drawn as a picture


@contextmanager
def drawing() -> Iterator[None]:
    """The style of every figure, while it is drawn and while it is saved."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks are drawn by the browser's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def panels(titles: Sequence[str], share: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of small panels, two beside each other.

    Args:
        titles: One of each panel.
        share: Whether all have the same limits.

    Returns:
        The figure and its panels, in the order of the titles.
    """
    columns = min(2, len(titles))
    rows = ceil(len(titles) / columns)
    width = _PANEL[0] * 2 if columns == 2 else 4.2
    figure = Figure(figsize=(width, (_PANEL[1] if columns == 2 else 2.9) * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flatten().tolist()
    for axes in grid[len(titles) :]:
        axes.remove()
    if len(titles) < len(grid) and share:
        grid[len(titles) - columns].tick_params(labelbottom=True)
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
    return figure, grid[: len(titles)]


def plain(name: str, letters: int = 40) -> str:
    """A name as a figure shows it: short, printable, and not hidden by matplotlib for a leading underscore."""
    return printable(f" {name}" if name.startswith("_") else name, letters)


def to_svg(figure: Figure) -> str:
    """Draw a figure as SVG that stands in an HTML page and takes the colour of the text around it.

    Args:
        figure: A figure drawn in `drawing`.

    Returns:
        The ``<svg>`` element. Names in it are escaped.
    """
    file = io.StringIO()
    hidden = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with drawing():
        figure.savefig(file, format="svg", transparent=True, dpi=_DOTS_PER_INCH["svg"], metadata=hidden)
    text = file.getvalue()
    return _shorter(text[text.index("<svg") :]).replace(INK, "currentColor")


def save(figure: Figure, folder: Path, name: str) -> None:
    """Save a figure for a paper: on white, as ``NAME.png`` and ``NAME.pdf``.

    Args:
        figure: A figure drawn in `drawing`.
        folder: Where; it is made where it is missing.
        name: Without suffix; letters, digits and hyphens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        figure.savefig(folder / f"{name}.png", dpi=_DOTS_PER_INCH["png"], facecolor="white")
        figure.set_layout_engine("none")  # what is laid out need not be laid out again
        dateless = {"CreationDate": None}
        figure.savefig(folder / f"{name}.pdf", dpi=_DOTS_PER_INCH["pdf"], facecolor="white", metadata=dateless)


def file_name(*parts: str) -> str:
    """A name for a file made of labels, which are other people's text: short, lower case, letters and digits."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:50].strip("-") or "x" for part in parts)


def _shorter(svg: str) -> str:
    """Leave out what no screen shows, half of a page of many figures: decimals of a point, indents, spare fonts."""
    svg = re.sub(r' (d|points|transform|x|y)="([^"]*)"', lambda found: f' {found[1]}="{_rounded(found[2])}"', svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: 'DejaVu Sans', sans-serif", svg)
    return re.sub(r"\n +<", "\n<", svg)


def _rounded(numbers: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", numbers)
