"""The contact sheet of ``untrigger poison --preview``."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ...callbacks.artefacts.figures import DPI, distortion, trigger_gallery
from ...contracts import UserMistake
from ...datamodules.bad_samples import BadSample
from ...datamodules.poisoning import CoverPlan, Poison
from ...datamodules.shards import ShardSet
from ...datamodules.shards.samples import decode_caption, decode_picture

PICTURES = 8


def write_preview(source: ShardSet, chosen: Poison, image_size: int, path: Path) -> None:
    """Draw what the plans' triggers do to pictures of the pairs that they have chosen, and print how much it is.

    All triggers are shown on the same pictures, spread over the chosen pairs of all plans.

    Args:
        source: The clean shards.
        chosen: The plans and their pairs.
        image_size: Side of the model's input square, in pixels.
        path: The PNG to write; its folder is made where it is missing.

    Raises:
        UserMistake: If none of the chosen pairs can be read.
    """
    keys, clean, captions = _pictures(source, sorted(key for part in chosen.keys for key in part), image_size)
    names = [f"{plan.attack_name}{' (cover)' if isinstance(plan, CoverPlan) else ''}" for plan in chosen.plans]
    if len(names) > 1:
        names = [f"{number}. {name}" for number, name in enumerate(names, 1)]
    triggered = {name: plan.trigger(clean, keys) for name, plan in zip(names, chosen.plans, strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    trigger_gallery(clean, triggered, captions).savefig(path, dpi=DPI)
    table = Table(
        "trigger",
        "pairs",
        "mean L2",
        "PSNR (dB)",
        "SSIM",
        title=f"Means over {len(keys)} pictures, L2 of pixels in 0..1",
    )
    for (name, pictures), pairs in zip(triggered.items(), chosen.keys, strict=True):
        measured = distortion(clean, pictures)
        figures = [f"{measured.l2:.2f}", f"{measured.psnr:.1f}", f"{measured.ssim:.3f}"]
        table.add_row(Text(name), f"{len(pairs):,}", *figures)
    Console().print(table)


def _pictures(source: ShardSet, keys: list[str], image_size: int) -> tuple[list[str], Tensor, list[str]]:
    """Keys, pictures ``(N, 3, S, S)`` uint8 and captions of some pairs, spread over those of these keys."""
    step = max(1, len(keys) // PICTURES)
    wanted = keys[::step] + keys  # where one is broken, another will do
    positions = source.locate(list(dict.fromkeys(wanted)))
    found: dict[str, tuple[Tensor, str]] = {}
    for key in wanted:
        if key in found:
            continue
        try:
            caption = decode_caption(source.read(*positions[key], "txt"))
            picture = decode_picture(source.read(*positions[key], "picture"), image_size)
        except BadSample:
            continue
        found[key] = torch.from_numpy(picture.copy()).permute(2, 0, 1), caption
        if len(found) == PICTURES:
            break
    if not found:
        raise UserMistake("none of the chosen pairs has a picture and a caption that can be read")
    images, captions = zip(*found.values(), strict=True)
    return list(found), torch.stack(images), list(captions)
