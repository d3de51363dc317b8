"""The figures of a report: functions from a run's figures to a matplotlib figure, and from that to inline SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK = "#010203"
"""The colour of text and axes: black on paper, the colour of the text around it in a page (`to_svg`)."""

_COLOURS = ("#d1495b", "#2e86ab", "#e08e2b", "#3a9d6e", "#8a63b8", "#7f8c8d")
_MARKERS = "osD^vPX*"
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
    "grid.alpha": 0.2,
    "grid.color": INK,
    "font.size": 11,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "untrigger",
}
_SIZE = (4.6, 3.3)  # inches: still legible when scaled down to the width of a phone

Curve = Sequence[tuple[int, float]]
"""(step, value) in the order of steps."""


def rates_over_training(clean_accuracy: Curve, success: Mapping[str, Curve]) -> Figure:
    """Clean accuracy and attack success rate after each validation.

    Args:
        clean_accuracy: Rates in [0, 1].
        success: By the name of an attack, its success rate in [0, 1].

    Returns:
        The figure, in percent.
    """
    with rc_context(_STYLE):
        figure, axes = _axes("training step", "share of test pictures (%)")
        curves = [("clean accuracy", clean_accuracy, _COLOURS[1], "o-")]
        colours = [_COLOURS[0], *_COLOURS[2:]]
        curves += [
            (f"attack success, {_plain(name)}", curve, colours[place % len(colours)], "s--")
            for place, (name, curve) in enumerate(success.items())
        ]
        for name, curve, colour, style in curves:
            if curve:
                steps, values = zip(*curve, strict=True)
                axes.plot(steps, [100 * value for value in values], style, color=colour, label=name, markersize=5)
        axes.set_ylim(-3, 103)
        figure.legend(loc="outside upper left", fontsize=10)
    return figure


def loss_over_training(loss: Curve) -> Figure:
    """The training loss.

    Args:
        loss: The logged values.

    Returns:
        The figure.
    """
    with rc_context(_STYLE):
        figure, axes = _axes("training step", "training loss")
        steps, values = zip(*loss, strict=True)
        axes.plot(steps, values, color=_COLOURS[1])
    return figure


def accuracy_against_success(points: Sequence[tuple[str, str, float, float]]) -> Figure:
    """Clean accuracy against attack success rate, each defence joined to the undefended model it started from.

    Args:
        points: For each model the series it belongs to (a model before and after defences), the name of its defence,
            ``none`` for the one before, its attack success rate and its clean accuracy, in [0, 1].

    Returns:
        The figure, in percent. The best place is the upper left.
    """
    series = list(dict.fromkeys(name for name, *_ in points))
    defences = sorted({defence for _, defence, *_ in points}, key=lambda name: (name != "none", name))
    with rc_context(_STYLE):
        figure, axes = _axes("attack success rate (%)", "clean accuracy (%)")
        colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(series)}
        markers = {name: _MARKERS[place % len(_MARKERS)] for place, name in enumerate(defences)}
        for name, colour in colours.items():
            own = [(defence, 100 * x, 100 * y) for other, defence, x, y in points if other == name]
            before = [(x, y) for defence, x, y in own if defence == "none"]
            for defence, x, y in own:
                if before and defence != "none":
                    axes.plot([before[0][0], x], [before[0][1], y], "-", color=colour, alpha=0.5, linewidth=1.5)
                axes.plot([x], [y], markers[defence], color=colour, markersize=9)
        _percent_limits(axes, [100 * y for *_, y in points])
        attacks = [Line2D([], [], color=colour, linewidth=4, label=_plain(name)) for name, colour in colours.items()]
        figure.legend(handles=attacks, loc="outside upper left", fontsize=10)
        names = {defence: "no defence" if defence == "none" else _plain(defence) for defence in defences}
        marks = [Line2D([], [], marker=markers[d], linestyle="", color=INK, label=names[d]) for d in defences]
        figure.legend(handles=marks, loc="outside upper right", fontsize=10)
    return figure


def to_svg(figure: Figure) -> str:
    """Draw a figure as SVG that stands in an HTML page and takes the colour of the text around it.

    Args:
        figure: A figure of this module.

    Returns:
        The ``<svg>`` element. Names in it are escaped.
    """
    file = io.StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks are drawn by the browser's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return figure, axes


def _percent_limits(axes: Axes, heights: Sequence[float]) -> None:
    """The whole width, but a height of ten points at least: a tenth of a point is not to look like a collapse."""
    low, high = min(heights), max(heights)
    margin = max(1.0, (10 - (high - low)) / 2)
    axes.set_xlim(-3, 103)
    axes.set_ylim(max(low - margin, -3), min(high + margin, 103))


def _plain(name: str) -> str:
    """A name as a legend shows it: short, printable, and not hidden by matplotlib for a leading underscore."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= 40 else f"{name[:39]}…"
