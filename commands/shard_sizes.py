"""``untrigger shards sizes``: how many pairs each shard has."""

from __future__ import annotations

import json
from pathlib import Path

from ..contracts import UserMistake
from ..datamodules.shards import ShardSet, expand_shards
from ..files import write_text


def write_sizes(shards: str, output: Path) -> None:
    """Count the pairs of shards, as webdataset's sizes.json, so that no run has to: see --data.counts.

    Every shard is read through once, as far as its headers go, and what is cut off or is not whole is told.

    Example:
        untrigger shards sizes 'train/{00000..00019}.tar' train/sizes.json

    Args:
        shards: A folder, a path, a URL or a brace pattern.
        output: The file to write.

    Raises:
        UserMistake: If a shard cannot be read, or two have one file name.
    """
    paths = expand_shards(shards)
    names = [Path(path.partition("?")[0]).name for path in paths]
    if len(set(names)) < len(names):
        raise UserMistake("two shards have the same file name: count the folders one by one")
    found = ShardSet(paths)
    sizes = dict(zip(names, found.counts.tolist(), strict=True))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(sizes, indent=1) + "\n")
    rest = ""
    if found.incomplete:
        rest = f"; {found.incomplete:,} more lack a picture or a caption, or end early ({found.told_members})"
    print(f"{len(found):,} pairs in {len(paths):,} shards, counted in {output}{rest}")
