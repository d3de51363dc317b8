"""What was written, read back without the code that wrote it."""

from __future__ import annotations

import tarfile
from pathlib import Path


def members(*shards: Path) -> dict[str, bytes]:
    """The files in tars, by their names there."""
    found = {}
    for shard in shards:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def files(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their paths from there, in order."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
