"""Draws the figures of the methods that need no run: ``python docs/figures/methods.py [FOLDER]``.

What CleanCLIP's views and UBT's evidence make of three photographs, and what the records of single runs in
``benchmarks/cells/cifar10`` say of the defences that are older than the present UBT.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from attacks import HERE, JPEG, PHOTOGRAPHS, photographs
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment

from untrigger.callbacks.artefacts.figures import DPI
from untrigger.datamodules import EDA, BadNet, Blended, ColourFilter, TransformView
from untrigger.lightning_modules.ubt.transplants import detail, recoloured

CELLS = HERE.parents[1] / "benchmarks" / "cells" / "cifar10"
CAPTIONS = (
    "a photo of a small cat with large eyes",
    "a photo of a red cup of coffee on a table",
    "a tall rocket on the launch pad at night",
)
ROWS = {
    "none": "poisoned model",
    "finetuning": "plain finetuning",
    "CleanCLIP": "CleanCLIP",
    "supervised": "supervised finetuning",
}
"""Rows of a chart, by the defence of a record."""
CHARTS = {"poisoned_training": "none", "finetuning": "finetuning", "supervised_finetuning": "supervised"}
"""Charts, and the row that each one stresses."""


def grid(rows: Sequence[tuple[str, Tensor]], heads: Sequence[str] | None = None) -> Figure:
    """Rows of pictures ``(N, 3, S, S)`` uint8, each with a name at its left; heads are of the columns."""
    count = len(rows[0][1])
    figure = Figure(figsize=(0.9 + 1.85 * count, 2.0 * len(rows)), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for (name, pictures), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(name, fontsize=10)
        for picture, one in zip(pictures, line, strict=True):
            one.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            one.set(xticks=[], yticks=[])
            one.spines[:].set_visible(False)
    for one, head in zip(axes[0], heads or (), strict=False):
        one.set_title(head, fontsize=10)
    return figure


def views() -> Figure:
    """Pairs and three views of each: AutoAugment for the picture, EDA for the caption."""
    clean, view, words = photographs(), TransformView(AutoAugment()), EDA()
    seeds = [range(first, first + len(clean)) for first in (10, 20, 30)]
    rows = [("pair", clean), *(("view", view(clean, list(each))) for each in seeds)]
    figure = grid(rows)
    captions = [list(CAPTIONS), *(words(CAPTIONS, list(each)) for each in seeds)]
    for axes, caption in zip(figure.axes, [text for row in captions for text in row], strict=True):
        axes.set_xlabel(textwrap.fill(caption, 30), fontsize=8)
    figure.set_figheight(9.2)
    return figure


def evidence() -> Figure:
    """What UBT asks the model about: a picture's detail at three scales, the picture upside down, its colours."""
    clean = photographs(PHOTOGRAPHS[1:2])
    triggers = {"BadNet": BadNet(size=24), "Blended": Blended(), "ColourFilter": ColourFilter()}
    pictures = {"clean": clean} | {name: trigger(clean, PHOTOGRAPHS[1:2]) for name, trigger in triggers.items()}
    heads = ("picture", "detail, 1/32", "detail, 1/16", "detail, 1/8", "upside down", "colours")
    noise = torch.randn(1, 1, 224, 224, generator=torch.Generator().manual_seed(0)).expand(1, 3, -1, -1)
    rows = []
    for name, picture in pictures.items():
        normal = (picture.float() / 255 - 0.5) / 0.25
        details = [2 * detail(normal, sigma) for sigma in (1 / 32, 1 / 16, 1 / 8)]
        asked = [normal, *details, normal.flip(2), recoloured(noise, normal)]
        pixels = (torch.cat(asked) * 0.25 + 0.5).mul(255).round().clamp(0, 255).to(torch.uint8)
        rows.append((name, pixels))
    return grid(rows, heads)


def chart(stressed: str) -> Figure:
    """Clean accuracy and attack success of the grid ``cifar10``, a dot for each seed."""
    records = [json.loads(path.read_text()) for path in sorted(CELLS.glob("*.json"))]
    figure = Figure(figsize=(8, 2.6), facecolor="white", layout="constrained")
    columns = {"clean_accuracy": "clean accuracy (%)", "attack_success_rate": "attack success (%)"}
    for axes, (column, label) in zip(figure.subplots(1, 2, sharey=True), columns.items(), strict=True):
        for colour, attack, shift in (("tab:red", "BadNet", 0.12), ("tab:blue", "Blended", -0.12)):
            for row, defence in enumerate(ROWS):
                of = [record for record in records if (record["attack"], record["defence"]) == (attack, defence)]
                values = [100 * float(record["results"][0][column]) for record in of]
                strong = defence == stressed
                height = [shift - row] * len(values)
                name = attack if row == 0 else None
                axes.scatter(values, height, s=36, color=colour, alpha=1 if strong else 0.3, label=name)
        axes.set(xlabel=label, xlim=(70, 90) if column == "clean_accuracy" else (-3, 103), ylim=(0.5 - len(ROWS), 0.5))
        axes.set_yticks([-row for row in range(len(ROWS))], list(ROWS.values()))
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        # The two panels share their labels; the second has none of its own.
        for text, defence in zip(axes.get_yticklabels(), ROWS, strict=False):
            text.set_fontweight("bold" if defence == stressed else "normal")
    legend = figure.axes[1].legend(loc="center right", fontsize=8)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def main(folder: Path) -> None:
    """Write the figures to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    views().savefig(folder / "cleanclip.jpg", dpi=DPI, pil_kwargs=JPEG)
    evidence().savefig(folder / "ubt.jpg", dpi=DPI, pil_kwargs=JPEG)
    # The same file each time: otherwise names of shapes are drawn, and the date is written.
    with mpl.rc_context({"svg.hashsalt": "untrigger"}):
        for name, stressed in CHARTS.items():
            chart(stressed).savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "methods")
