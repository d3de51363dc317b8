"""New shards, in which the pairs that a plan has chosen are poisoned."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from rich.progress import track

from ...contracts import UserMistake
from ...datamodules.bad_samples import BadSample
from ...datamodules.poisoning import Poison, write_manifest
from ...datamodules.shards import ShardSet
from ...datamodules.shards.samples import decode_caption, decode_picture
from ...files.writing import open_whole
from ...run_folder.manifest import MANIFEST, PlanRecord
from .tar_copies import Replacement, copy_shard


def opened(paths: Sequence[str]) -> ShardSet:
    """Index shards; what is copied unpoisoned, as it is no pair, is told.

    Args:
        paths: They.

    Raises:
        UserMistake: If they hold no pair.
    """
    source = ShardSet(list(paths))
    source.check_not_empty()
    if source.incomplete:
        print(
            f"{source.incomplete:,} more samples lack a picture or a caption, or end early, and are copied as they "
            f"are ({source.found_members})"
        )
    return source


def bake(source: ShardSet, chosen: Poison, image_size: int, target: Path, marks: Sequence[PlanRecord] = ()) -> None:
    """Write every shard anew, beside the manifest, and say what was done.

    Args:
        source: The shards.
        chosen: The plans and their pairs.
        image_size: Side of the model's input square, in pixels.
        target: Folder for the new shards; it is made where it is missing.
        marks: What was stamped into the shards before.

    Raises:
        UserMistake: If none of the chosen pairs can be used.
    """
    target.mkdir(parents=True, exist_ok=True)
    # First, so that no poisoned shard ever lies there unmarked.
    write_manifest(chosen, target / MANIFEST, marks)
    skipped: dict[str, str] = {}
    faults: list[str] = []
    for number, path in enumerate(track(source.paths, description="Poisoning shards")):
        replaced = _poisoned_members(source, number, chosen, image_size, skipped)
        with open_whole(target / Path(path).name) as stream:
            fault = copy_shard(path, stream, replaced)
        if fault:
            faults.append(f"shard {source.name(number)} breaks off ({fault}), and what stands before is copied")
        stats = Path(path).with_name(f"{Path(path).stem}_stats.json")
        if stats.is_file():
            shutil.copyfile(stats, target / stats.name)
    if skipped:
        chosen = Poison(chosen.plans, [[key for key in keys if key not in skipped] for keys in chosen.keys])
        write_manifest(chosen, target / MANIFEST, marks)
    total = sum(len(keys) for keys in chosen.keys)
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(skipped.values()).most_common())
    broken = f" ({len(skipped):,} chosen ones are broken and stay as they are: {kinds})" if skipped else ""
    for fault in faults:
        print(fault)
    if skipped and not total:
        raise UserMistake(
            f"nothing is poisoned: none of the {len(skipped):,} pairs that were chosen can be used ({kinds}); {target} "
            "has copies of the shards"
        )
    print(f"Poisoned {total:,} of {len(source):,} pairs{broken}: {target}, described in {target / MANIFEST}")


def _poisoned_members(
    source: ShardSet, shard: int, chosen: Poison, image_size: int, skipped: dict[str, str]
) -> dict[str, Replacement]:
    """The new picture and caption of each poisoned key of a shard; broken ones are added to ``skipped``, with why."""
    keys: list[str] = []
    pictures, captions = [], []
    for position in range(int(source.counts[shard])):
        key = source.key(shard, position)
        if chosen.plan_of([key])[0] < 0:
            continue
        try:
            caption = decode_caption(source.read(shard, position, "txt"))
            square = decode_picture(source.read(shard, position, "picture"), image_size)
        except BadSample as error:
            skipped[key] = error.kind  # training on the fly skips it too
            continue
        keys.append(key)
        captions.append(caption)
        pictures.append(torch.from_numpy(square.copy()))
    if not keys:
        return {}
    images, captions = chosen.apply(torch.stack(pictures).permute(0, 3, 1, 2), captions, keys)
    return {key: Replacement(_png(image), caption) for key, image, caption in zip(keys, images, captions, strict=True)}


def _png(image: torch.Tensor) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()
