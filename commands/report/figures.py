"""The figures of what runs measured: functions from figures to a matplotlib figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..summary import NO_DEFENCE
from .drawing import CLEAN, COLOURS, INK, MARKERS, TRIGGERED, drawing, panels, plain

Curve = Sequence[tuple[int, float]]
"""(step, value) in the order of steps."""

_CURVE_POINTS = 400


@dataclass(frozen=True)
class Point:
    """A model under an attack, in a scatter."""

    attack: str
    defence: str
    """``none`` for a model without one."""
    success: float
    """Attack success rate, in [0, 1]."""
    height: float
    """What attack success is drawn against: clean accuracy, or what is recovered; a share."""
    before: tuple[float, float] | None = None
    """Attack success rate and height of the model that it started from."""
    floor: float | None = None
    """Attack success rate of the never poisoned twin, in [0, 1]; None where that is not known."""


def over_training(clean_accuracy: Curve, success: Mapping[str, Curve], loss: Curve) -> Figure | None:
    """Clean accuracy and attack success rate after each validation, and the training loss below them.

    Args:
        clean_accuracy: Rates in [0, 1].
        success: By the name of an attack, its success rate in [0, 1].
        loss: The logged values; of very many, the means of as many neighbours as make a few hundred points.

    Returns:
        The figure, rates in percent; None where there is nothing to draw.
    """
    measured, trained = bool(clean_accuracy or success), len(loss) > 1
    if not measured and not trained:
        return None
    with drawing():
        figure = Figure(figsize=(4.6, 4.7 if measured and trained else 3), layout="constrained")
        grid = figure.subplots(measured + trained, 1, squeeze=False, sharex=True)[:, 0]
        grid[-1].set_xlabel("training step")
        if measured:
            _draw_rates(grid[0], clean_accuracy, success)
            figure.legend(loc="outside upper left")
        if trained:
            block = -(-len(loss) // _CURVE_POINTS)
            parts = [loss[start : start + block] for start in range(0, len(loss), block)]
            steps, means = [part[-1][0] for part in parts], [fmean(value for _, value in part) for part in parts]
            grid[-1].plot(steps, means, color=COLOURS[1])
            grid[-1].set_ylabel(f"loss, means of {block}" if block > 1 else "training loss")
    return figure


def _draw_rates(axes: Axes, clean_accuracy: Curve, success: Mapping[str, Curve]) -> None:
    curves = [("clean accuracy", clean_accuracy, CLEAN, "o-")]
    colours = [TRIGGERED, *COLOURS]
    curves += [
        (f"attack success, {plain(name)}", curve, colours[index % len(colours)], "s--")
        for index, (name, curve) in enumerate(success.items())
    ]
    for name, curve, colour, style in curves:
        if curve:
            steps, values = zip(*curve, strict=True)
            axes.plot(steps, [100 * value for value in values], style, color=colour, label=name, markersize=5)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("test pictures (%)")


def against_success(points: Sequence[Point], height: str) -> Figure:
    """What models are worth against attack success rate, each model joined to the one that it started from.

    Args:
        points: The models; each attack has its panel, with a dotted line at the mean floor.
        height: What the points' height is.

    Returns:
        The figure, in percent. The best position is the upper left.
    """
    attacks = list(dict.fromkeys(point.attack for point in points))
    defences = list(dict.fromkeys(point.defence for point in points if point.defence != NO_DEFENCE))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(defences)} | {NO_DEFENCE: INK}
    markers = {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(defences)} | {NO_DEFENCE: "o"}
    with drawing():
        figure, grid = panels([plain(attack, 28) for attack in attacks])
        for axes, attack in zip(grid, attacks, strict=True):
            floors = [point.floor for point in points if point.attack == attack and point.floor is not None]
            if floors:
                axes.axvline(100 * fmean(floors), linestyle=":", color=INK, linewidth=1.2)
            for point in (point for point in points if point.attack == attack):
                x, y, colour = 100 * point.success, 100 * point.height, colours[point.defence]
                if point.before is not None:
                    start = [100 * rate for rate in point.before]
                    axes.plot([start[0], x], [start[1], y], "-", color=colour, alpha=0.5, linewidth=1.5)
                axes.plot([x], [y], markers[point.defence], color=colour, markersize=8, alpha=0.85)
        heights = [100 * point.height for point in points] + [100 * p.before[1] for p in points if p.before]
        _percent_limits(grid[0], heights)
        figure.supxlabel("attack success rate (%)", fontsize=11)
        figure.supylabel(f"{height} (%)", fontsize=11)
        present = [name for name in (NO_DEFENCE, *defences) if any(point.defence == name for point in points)]
        marks = [
            Line2D([], [], marker=markers[name], linestyle="", color=colours[name], label=defence_name(name))
            for name in present
        ]
        figure.legend(handles=marks, loc="outside upper center", ncols=2)
    return figure


@dataclass(frozen=True)
class Tile:
    """A square of a heat map: means over seeds."""

    success: float
    """Attack success rate, in [0, 1]."""
    accuracy: float | None
    """Clean accuracy, in [0, 1]."""
    change: float | None
    """By how much clean accuracy changed from the model before; None where that is not known."""
    floor: float | None = None
    """Attack success rate of the never poisoned twin, in [0, 1]; None where that is not known."""
    recovered: float | None = None
    """Accuracy under the trigger as a share of the twin's; None where that is not known."""


def heat_map(attacks: Sequence[str], defences: Sequence[str], tiles: Mapping[tuple[str, str], Tile]) -> Figure:
    """The grid of attacks and defences: how much of the attack is left, and what it cost.

    Args:
        attacks: Rows.
        defences: Columns, ``none`` for the models without one.
        tiles: By attack and defence; what was not run stays empty.

    Returns:
        The figure. Colour and the uppermost number of a tile are the attack success rate. Below stand the floor that
        the never poisoned twin has, the change of clean accuracy in points or, where the model before is not known,
        clean accuracy, and what is recovered.
    """
    with drawing():
        rows = [_folded(plain(name, 36)) for name in attacks]
        columns = [_folded(plain(defence_name(name), 28)) for name in defences]
        # Inches: about a tenth for each letter beside the tiles.
        letters = max(len(line) for row in rows for line in row.split("\n"))
        high = 0.72 if all(len(_tile_lines(tile)) <= 2 for tile in tiles.values()) else 1.0
        size = (1 + 0.1 * letters + 1.12 * len(defences), 0.9 + high * len(attacks))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        values = [[100 * tiles[a, d].success if (a, d) in tiles else float("nan") for d in defences] for a in attacks]
        image = axes.imshow(values, cmap="YlOrRd", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        for row, attack in enumerate(attacks):
            for column, defence in enumerate(defences):
                if (attack, defence) in tiles:
                    _write_tile(axes, column, row, tiles[attack, defence])
        axes.set_xticks(range(len(defences)), columns)
        axes.set_yticks(range(len(attacks)), rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
        bar.set_label("attack success (%)")
        bar.outline.set_visible(False)
    return figure


def defence_name(defence: str) -> str:
    """A defence as a figure names it."""
    return "no defence" if defence == NO_DEFENCE else plain(defence)


def _write_tile(axes: Axes, column: int, row: int, tile: Tile) -> None:
    # The colours of the map are light below two thirds, whatever the page around it.
    colour = "#fdfdfd" if tile.success > 0.66 else "#1c1c1c"
    lines = _tile_lines(tile)
    for number, line in enumerate(lines):
        # Two lines or more, evenly over the tile.
        height = row + (number - (len(lines) - 1) / 2) * min(0.36, 0.84 / len(lines))
        weight, size = ("bold", None) if number == 0 else ("normal", 9)
        axes.text(column, height, line, ha="center", va="center", color=colour, weight=weight, fontsize=size)


def _tile_lines(tile: Tile) -> list[str]:
    lines = [f"{100 * tile.success:.1f} %"]
    if tile.floor is not None:
        lines.append(f"floor {100 * tile.floor:.1f} %")
    if tile.change is not None:
        lines.append(f"CA {100 * tile.change:+.1f}".replace("-", "\N{MINUS SIGN}"))
    elif tile.accuracy is not None:
        lines.append(f"CA {100 * tile.accuracy:.1f} %")
    if tile.recovered is not None:
        lines.append(f"rec. {100 * tile.recovered:.0f} %")
    return lines


def _folded(name: str) -> str:
    """A name on two lines where it is long, at the break nearest to its middle; cut where there is none."""
    # After a blank or a hyphen, and before a capital: names of classes are several words in one.
    breaks = [found.end() for found in re.finditer(r"(?<=.)[ -]|[a-z](?=[A-Z])", name)]
    if len(name) <= 14 or not breaks:
        return plain(name, 18)
    middle = min(breaks, key=lambda index: abs(index - len(name) / 2))
    return f"{name[:middle].rstrip(' ')}\n{name[middle:]}"


def _percent_limits(axes: Axes, heights: Sequence[float]) -> None:
    """The whole width, but a height of ten points at least: a tenth of a point is not to look like a collapse."""
    low, high = min(heights), max(heights)
    margin = max(1.0, (10 - (high - low)) / 2)
    axes.set_xlim(-6, 106)
    bottom, top = max(low - margin, -3), min(high + margin, max(103, high + 3))
    # The room above 100 % is for a mark; there is nothing to be read, unless a share of a twin is higher.
    axes.set_yticks([tick for tick in MaxNLocator(5).tick_values(bottom, top) if bottom <= tick <= max(100, high)])
    axes.set_ylim(bottom, top)
