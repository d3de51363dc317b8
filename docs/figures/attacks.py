"""Draws what each trigger does to three photographs: ``python docs/figures/attacks.py [FOLDER]``.

The sheets are those of ``untrigger poison --preview``, from the same code, at the papers' 224 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from untrigger.callbacks.artefacts.figures import DPI, trigger_gallery
from untrigger.datamodules import (
    SIG,
    BadNet,
    Blended,
    ColourFilter,
    GivenPicture,
    Stripes,
    TextOverlay,
    Triangles,
    Trigger,
    WaNet,
    Watermark,
)

HERE = Path(__file__).parent
PHOTOGRAPHS = ("cat", "coffee", "rocket")
JPEG = {"quality": 85, "subsampling": 0}
"""Whole colours: stripes of one pixel would be gone."""


def sheets() -> dict[str, dict[str, Trigger]]:
    """The triggers of each page, by what its sheet calls them."""
    given = GivenPicture([str(HERE / "photographs" / "rocket.jpg")])
    return {
        "badnet": {"BadNet": BadNet(), "BadNet, solid": BadNet(pattern="solid", place="bottom_right")},
        "blended": {"Blended": Blended()},
        "sig": {"SIG": SIG()},
        "wanet": {"WaNet, s = 4": WaNet(s=4.0)},
        "watermark": {"Watermark": Watermark()},
        "colour_filter": {"ColourFilter": ColourFilter()},
        "stripes": {"Stripes": Stripes()},
        "triangles": {"Triangles": Triangles()},
        "text_overlay": {"TextOverlay": TextOverlay()},
        "given_picture": {"GivenPicture": given},
    }


def photographs(names: Sequence[str] = PHOTOGRAPHS) -> Tensor:
    """``(N, 3, 224, 224)`` uint8."""
    pictures = [np.asarray(Image.open(HERE / "photographs" / f"{name}.jpg").convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def overview(triggers: Mapping[str, Trigger]) -> Figure:
    """One photograph under every trigger, four to a row."""
    clean = photographs(PHOTOGRAPHS[:1])
    tiles = {"clean": clean} | {name: trigger(clean, PHOTOGRAPHS[:1]) for name, trigger in triggers.items()}
    rows = -(-len(tiles) // 4)
    figure = Figure(figsize=(9.2, 2.5 * rows), dpi=DPI, facecolor="white", layout="constrained")
    for number, (name, (picture,)) in enumerate(tiles.items(), 1):
        axes = figure.add_subplot(rows, 4, number)
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    return figure


def main(folder: Path) -> None:
    """Write the sheets to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages, clean = sheets(), photographs()
    for page, triggers in pages.items():
        shown = clean[:2] if page == "given_picture" else clean  # the third is the one that is given
        stamped = {name: trigger(shown, PHOTOGRAPHS[: len(shown)]) for name, trigger in triggers.items()}
        trigger_gallery(shown, stamped).savefig(folder / f"{page}.jpg", dpi=DPI, pil_kwargs=JPEG)
    one = {name: trigger for page, triggers in pages.items() for name, trigger in triggers.items()}
    overview(one).savefig(folder / "overview.jpg", dpi=DPI, pil_kwargs=JPEG)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "attacks")
