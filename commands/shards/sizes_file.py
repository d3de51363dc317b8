"""The file that ``untrigger shards sizes`` writes: it takes the place of an earlier one, and of nothing else."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...files.reading import read_json, shown, user_path


def check_sizes_file(output: Path, names: Container[str]) -> None:
    """Check that a file may be written: a new one, or one that held counts before.

    A pattern of the shell's that fits two shards names the second as the output where none was given.

    Args:
        output: The file to write.
        names: File names of the shards that are counted.

    Raises:
        UserMistake: If there is such a file or folder, which is no JSON of counts.
    """
    if user_path(output, "output").exists() and not _are_counts(output, names):
        raise UserMistake(
            f"{shown(output)} is there already and holds no counts: give a new file after the shards, such as "
            "sizes.json, and put quotes around a pattern of several shards"
        )


def _are_counts(path: Path, names: Container[str]) -> bool:
    try:
        content: Any = read_json(path, "output")
    except UserMistake:  # a folder, a shard, a picture
        return False
    return isinstance(content, dict) and all(
        (name in names or name.endswith(".tar")) and type(count) is int for name, count in content.items()
    )
