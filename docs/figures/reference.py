"""Draws what the reference methods do, as schemes: ``python docs/figures/reference.py [FOLDER]``.

Nothing in them is measured: they show the methods' formulas.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from attacks import HERE
from matplotlib.figure import Figure


def panels(*labels: tuple[str, str]) -> tuple[Figure, list[Any]]:
    """A row of axes, each with the names of its two axes."""
    figure = Figure(figsize=(4 * len(labels), 2.6), facecolor="white", layout="constrained")
    row = list(figure.subplots(1, len(labels), squeeze=False)[0])
    for axes, (across, up) in zip(row, labels, strict=True):
        axes.set(xlabel=across, ylabel=up)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, row


def par() -> Figure:
    """How far a tower is pushed, and the learning rate of a run."""
    figure, (term, rate) = panels(
        ("mean squared distance S to the poisoned model", "what S takes off the loss"),
        ("steps, of all", "learning rate"),
    )
    threshold = 2.15
    below = np.linspace(0, threshold, 50)
    term.plot(below, below / 2, color="tab:red")
    term.plot([threshold, 4], [0, 0], color="tab:red")
    term.axvline(threshold, color="grey", linestyle=":")
    term.text(threshold + 0.05, 0.9, "tau", color="grey")
    half = np.linspace(0, 1, 50)
    rate.plot(half / 2, 1 - 0.9 * half, color="tab:blue", label="perturb")
    rate.plot(0.5 + half / 2, 0.1 * (1 + np.cos(np.pi * half)) / 2, color="tab:green", label="recover")
    rate.set(yticks=[0, 0.1, 1], yticklabels=["0", "lr / 10", "lr"])
    rate.legend(fontsize=8)
    return figure


def abl() -> Figure:
    """What the loss of a pair counts: in the trap, and in the unlearning."""
    names = ("contrastive loss of a pair, of chance", "what it counts")
    figure, (trap, unlearn) = panels(names, names)
    gamma = 0.5
    below, above = np.linspace(0, gamma, 20), np.linspace(gamma, 1.3, 20)
    trap.plot(below, -below, color="tab:red")
    trap.plot(above, above, color="tab:blue")
    trap.axvline(gamma, color="grey", linestyle=":")
    trap.text(gamma + 0.03, 1.1, "gamma", color="grey")
    trap.set_title("isolate", fontsize=10)
    loss = np.linspace(0, 1.3, 40)
    unlearn.plot(loss, loss, color="tab:blue", label="another pair")
    unlearn.plot(loss, -np.minimum(loss, 1), color="tab:red", label="an isolated pair")
    unlearn.set_title("unlearn", fontsize=10)
    unlearn.legend(fontsize=8)
    return figure


def tbar() -> Figure:
    """The way of the weights."""
    figure, (axes,) = panels(("a direction in the space of the weights", "another one"))
    poisoned, vector = np.array([1.0, 1.0]), np.array([0.8, 0.5])
    for colour, name, times in (("tab:red", "finetuned on triggered pairs", 1.0), ("tab:green", "cleaned", -1.0)):
        end = poisoned + times * vector
        axes.annotate("", end, poisoned, arrowprops={"arrowstyle": "->", "color": colour, "shrinkA": 4})
        axes.scatter(*end, color=colour)
        axes.annotate(name, end, (0, -14), textcoords="offset points", ha="center", fontsize=9)
    axes.scatter(*poisoned, color="black")
    axes.annotate("poisoned", poisoned, (0, -14), textcoords="offset points", ha="left", fontsize=9)
    axes.set(xlim=(-0.5, 2.6), ylim=(0.1, 1.8), xticks=[], yticks=[])
    return figure


def fine_pruning() -> Figure:
    """Units by their activity on clean pictures, and those that are removed."""
    figure, (axes,) = panels(("units, the least active first", "activity on clean pictures"))
    units = np.arange(32)
    activity = np.exp(units / 12) - 0.9
    removed = units < 12
    axes.bar(units[removed], activity[removed], color="tab:red", label="removed, as long as the loss allows it")
    axes.bar(units[~removed], activity[~removed], color="tab:blue", label="kept, and finetuned")
    axes.set(xticks=[], yticks=[])
    axes.legend(fontsize=8)
    return figure


def linear_probe() -> Figure:
    """What is frozen, and what is trained."""
    figure = Figure(figsize=(6, 1.4), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 4), ylim=(0, 1))
    axes.set_axis_off()
    names = (
        *(("picture", "white"), ("image tower\n(frozen)", "lightgrey")),
        *(("features", "white"), ("head\n(trained)", "salmon")),
    )
    for index, (name, colour) in enumerate(names):
        box = {"boxstyle": "round", "facecolor": colour}
        axes.text(index + 0.5, 0.5, name, ha="center", va="center", bbox=box, fontsize=10)
        if index:
            axes.annotate("", (index + 0.12, 0.5), (index - 0.12, 0.5), arrowprops={"arrowstyle": "->"})
    return figure


def roclip() -> Figure:
    """Whose captions pictures are matched with, epoch by epoch."""
    figure, (axes,) = panels(("epoch", ""))
    for epoch in range(1, 7):
        matched = epoch % 2 == 0
        axes.bar(epoch, 1, color="tab:red" if matched else "tab:blue", width=0.9)
        axes.text(epoch, 0.5, "the pool's" if matched else "its own", ha="center", va="center", color="white")
    axes.set(yticks=[], title="the caption that a picture is matched with")
    figure.set_size_inches(7, 1.8)
    return figure


def safeclip() -> Figure:
    """The parts of a run, and how the safe share grows."""
    figure, (axes,) = panels(("epoch", "share of all pairs"))
    third = np.arange(7, 33)
    safe = np.minimum(0.4 + 0.02 * (third - 7), 0.85)
    axes.bar(np.arange(1, 6), np.ones(5), color="lightgrey", label="apart: pictures, captions")
    axes.bar([6], [1], color="tab:green", label="together, at a small rate")
    axes.bar(third, safe, color="tab:blue", label="safe: together")
    axes.bar(third, 1 - safe, bottom=safe, color="tab:red", label="risky: apart")
    axes.legend(fontsize=8, loc="lower right")
    figure.set_size_inches(7, 2.6)
    return figure


def pictures() -> Figure:
    """The embedding of a picture along the mask, and where a score stands among clean ones."""
    figure, (masked, conformal) = panels(
        ("share of the picture that is masked", "distance to the first"),
        ("score", "clean pictures"),
    )
    shares = np.linspace(0, 0.8, 12)
    masked.scatter(shares, 0.6 * shares**1.2, s=14, color="tab:blue", label="clean")
    masked.scatter(
        shares, np.where(shares < 0.35, 0.05 * shares, 0.6 + 0.1 * shares), s=14, color="tab:red", label="triggered"
    )
    masked.set(yticks=[])
    masked.legend(fontsize=8)
    at = np.linspace(-3, 3, 25)
    conformal.bar(at, np.exp(-(at**2) / 2), width=0.22, color=["tab:red" if x >= 1.6 else "lightgrey" for x in at])
    conformal.axvline(1.6, color="black", linestyle=":")
    conformal.text(1.7, 0.7, "s", fontsize=10)
    conformal.set(xticks=[], yticks=[], title="p is the red share")
    return figure


def text_trigger() -> Figure:
    """Where a query stands among pictures, without the trigger and with it."""
    figure, (axes,) = panels(("a direction in the space of the embeddings", "another one"))
    draws = np.random.default_rng(0)
    for name, colour, centre in (("ships", "tab:blue", (0.0, 0.0)), ("automobiles, the target", "tab:red", (3.0, 0.6))):
        axes.scatter(*draws.normal(centre, 0.35, (25, 2)).T, s=10, color=colour, label=name)
    asked = np.array([0.1, 0.8])
    axes.scatter(*asked, marker="*", s=90, color="black")
    axes.annotate("a photo of a ship.", asked, (0, 10), textcoords="offset points", ha="center", fontsize=9)
    axes.annotate("", (2.7, 1.25), asked, arrowprops={"arrowstyle": "->", "color": "black", "shrinkA": 6})
    axes.scatter(2.75, 1.27, marker="*", s=90, color="black")
    axes.annotate("a photo of a ship. zx", (2.75, 1.27), (0, 10), textcoords="offset points", ha="center", fontsize=9)
    axes.set(xlim=(-1.2, 4.4), ylim=(-1, 2), xticks=[], yticks=[])
    axes.legend(fontsize=8, loc="lower center")
    figure.set_size_inches(6, 2.8)
    return figure


def rvpt() -> Figure:
    """The tokens that each block sees, and what its class token is compared with."""
    figure, (axes,) = panels(("blocks of the image tower", "tokens"))
    for block in range(1, 7):
        kinds = [
            ("class", "tab:red", 1),
            *([("prompts", "tab:green", 2)] if block > 3 else []),
            ("picture", "lightgrey", 5),
        ]
        top = 0.0
        for name, colour, height in kinds:
            shown = name if block in (1, 4) and (block == 1 or name == "prompts") else None
            axes.bar(block, -height, 0.55, bottom=top, color=colour, edgecolor="white", label=shown)
            top -= height
        if block > 3:
            axes.annotate("away", (block, 0.1), (block, 1.4), ha="center", fontsize=8, arrowprops={"arrowstyle": "->"})
    axes.text(2, 1.4, "class tokens of the frozen model:", ha="center", fontsize=8)
    axes.set(xticks=range(1, 7), yticks=[], ylim=(-11.5, 2.4))
    axes.legend(fontsize=8, loc="lower center", ncols=3)
    figure.set_size_inches(6, 2.8)
    return figure


def concept_confusion() -> Figure:
    """Pictures by their concept score and the target's, with what their captions say before and after."""
    figure, axes = panels(*(("score of the concept", "score of the target"),) * 2)
    draws = np.random.default_rng(0)
    kinds = (
        ("cats", "tab:blue", (0.8, 0.2)),
        ("lemons, the target", "tab:red", (0.2, 0.8)),
        ("others", "grey", (0.2, 0.2)),
    )
    for place, (panel, title) in enumerate(zip(axes, ("captions before", "captions after"), strict=True)):
        for name, colour, centre in kinds:
            shown = "tab:red" if place and name == "cats" else colour
            panel.scatter(*draws.normal(centre, 0.07, (25, 2)).T, s=10, color=shown, label=None if place else name)
        panel.axvline(0.55, color="black", linestyle=":")
        panel.set(xlim=(0, 1.05), ylim=(0, 1.05), xticks=[], yticks=[], title=title)
    axes[0].text(0.57, 0.95, "sigma", fontsize=9)
    axes[0].legend(fontsize=7, loc="center right")
    return figure


def pairs() -> Figure:
    """Two Gaussians in similarities, and the pictures of a word in two directions."""
    figure, (mixture, spectral) = panels(
        ("similarity of picture and caption", "density"), ("the direction of most variance", "another one")
    )
    at = np.linspace(-0.1, 0.6, 60)
    for name, colour, share, mean, spread in (
        ("lower", "tab:red", 0.2, 0.1, 0.06),
        ("higher", "tab:blue", 0.8, 0.33, 0.08),
    ):
        density = share / spread * np.exp(-(((at - mean) / spread) ** 2) / 2)
        mixture.plot(at, density, color=colour, label=name)
    mixture.set(yticks=[])
    mixture.legend(fontsize=8)
    draws = np.random.default_rng(0)
    usual, odd = draws.normal(0, (0.5, 0.4), (60, 2)), draws.normal((2.4, 0.3), 0.2, (6, 2))
    for points, colour in ((usual, "tab:blue"), (odd, "tab:red")):
        spectral.scatter(*points.T, s=10, color=colour)
    spectral.set(xticks=[], yticks=[])
    return figure


def target_naming() -> Figure:
    """What pictures are taken for, without the patch and with it."""
    figure, (axes,) = panels(("classes", "share of pictures that are taken for it"))
    clean = np.array([0.18, 0.15, 0.17, 0.16, 0.19, 0.15])
    patched = np.array([0.08, 0.06, 0.1, 0.62, 0.09, 0.05])
    classes = np.arange(len(clean))
    axes.bar(classes - 0.2, clean, 0.4, color="lightgrey", label="without the patch")
    axes.bar(classes + 0.2, patched, 0.4, color="tab:red", label="with it")
    axes.annotate("named", (3.2, 0.62), (4.1, 0.55), arrowprops={"arrowstyle": "->"}, fontsize=9)
    axes.set(xticks=[], yticks=[0])
    axes.legend(fontsize=8, loc="upper left")
    return figure


def invertune() -> Figure:
    """Which neurons are tuned, and towards what."""
    figure, (chosen, tuned) = panels(
        ("change of a neuron by the inverted trigger", "neurons"), ("neurons of a layer", "mean answer")
    )
    change = np.linspace(0, 1, 60)
    chosen.fill_between(change, 3 * np.exp(-change / 0.06), color="tab:blue", label="lower cluster: left alone")
    high = change > 0.4
    chosen.fill_between(
        change[high], 0.6 * np.exp(-(((change[high] - 0.7) / 0.12) ** 2)), color="tab:red", label="higher: tuned"
    )
    chosen.set(xticks=[0], yticks=[])
    chosen.legend(fontsize=8)
    neurons = np.arange(12)
    clean = 0.4 + 0.1 * np.sin(neurons)
    triggered = clean + np.where(neurons % 4 == 2, 0.9, 0.04)
    tuned.bar(neurons - 0.2, clean, 0.4, color="lightgrey", label="a clean picture")
    tuned.bar(neurons + 0.2, triggered, 0.4, color="tab:red", label="with the trigger")
    for neuron in neurons[neurons % 4 == 2]:
        ends = (neuron + 0.2, clean[neuron]), (neuron + 0.2, triggered[neuron])
        tuned.annotate("", *ends, arrowprops={"arrowstyle": "->"})
    tuned.set(xticks=[], yticks=[0], ylim=(0, 1.9))
    tuned.legend(fontsize=8)
    return figure


DRAWINGS = {
    "invertune": invertune,
    "target_naming": target_naming,
    "par": par,
    "abl": abl,
    "tbar": tbar,
    "fine_pruning": fine_pruning,
    "linear_probe": linear_probe,
    "pairs": pairs,
    "text_trigger": text_trigger,
    "concept_confusion": concept_confusion,
    "rvpt": rvpt,
    "pictures": pictures,
    "roclip": roclip,
    "safeclip": safeclip,
}


def main(folder: Path) -> None:
    """Write the figures to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # The same file each time: otherwise names of shapes are drawn, and the date is written.
    with mpl.rc_context({"svg.hashsalt": "untrigger"}):
        for name, draw in DRAWINGS.items():
            draw().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "reference")
