"""``untrigger poison``: bake a poison plan into new shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...errors.importing import importing
from ...files.lock import held_folder
from ..declaration import Command

PREVIEW = "preview.png"


def poison(
    shards: str | list[str],
    out: str,
    plan: Any,
    image_size: int = 224,
    preview: bool = False,
) -> None:
    """Bake a poison plan into new shards, as an attacker who publishes a data set would.

    The poisoned pictures become PNGs of the model's input square with exactly the pixels that training on the fly would
    see, so that a run on the new shards equals a run with ``--data.poison``. All else is copied byte for byte. Beside
    the shards, poison.json says that they are poisoned, and how. Shards that are poisoned already keep their marks, and
    other pairs of theirs are chosen.

    With --preview, nothing but a contact sheet is written: look at it before you bake.

    Example:
        untrigger poison --shards 'train/{00000..00019}.tar' --out poisoned --image_size 32
        --plan PoisonPlan --plan.target automobile --plan.rate 0.01 --plan.trigger BadNet --plan.trigger.size 4
        --preview

    Args:
        shards: A folder, a path, a brace pattern or a list of these.
        out: Folder for the new shards, new or empty.
        plan: A plan, a list of plans, or the path of a poison.json. --plan.help PoisonPlan, or another class, shows
            the options of one.
        image_size: Side of the model's input square, in pixels.
        preview: Write nothing but preview.png: pictures of chosen pairs, what the triggers make of them, and the
            difference.
    """
    with importing():
        from ...datamodules.poisoning import poison_of, read_marks
        from ...datamodules.shards import expand_shards
        from ...datamodules.shards.remote import is_remote
        from .baking import bake, opened
        from .preview import write_preview

    paths = expand_shards(shards)
    if any(map(is_remote, paths)):
        raise UserMistake("shards are poisoned where they lie on a disk: copy them here first")
    if len({Path(path).name for path in paths}) != len(paths):
        raise UserMistake("two shards have the same file name: bake them into folders of their own")
    target = Path(out)
    with held_folder(target, "--out"):
        if any(path.name != PREVIEW for path in target.iterdir()):
            raise UserMistake(f"{out} is not an empty folder: give an output folder that is new or empty")
        source = opened(paths)
        marks = read_marks(source.folders, source)
        if marks:
            known = sum(len(mark.keys) for mark in marks)
            print(f"{known:,} pairs are poisoned already: they stay as they are, and marked")
        chosen = poison_of(plan, source, image_size, marks)
        if chosen is None:
            raise UserMistake("there is no plan: give --plan a class, or the path of a poison.json")
        if preview:
            write_preview(source, chosen, image_size, target / PREVIEW)
            print(f"wrote {target / PREVIEW}")
        else:
            bake(source, chosen, image_size, target, marks)


def _plan_type() -> Any:
    with importing():
        from ...datamodules.poisoning import PoisonSpec
    return PoisonSpec


COMMAND = Command(poison, switches=["preview"], imported_types={"plan": _plan_type})
