from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from untrigger.datamodules.shards import ShardSet
from untrigger.datamodules.shards.replaced import changed_shards, shards_state

WritePairs = Callable[..., list[str]]


def reported(before: dict[str, object], paths: list[str]) -> str:
    return changed_shards(before, shards_state(ShardSet(paths)))


def test_the_same_shards_are_the_same_wherever_and_whenever(write_pairs: WritePairs, tmp_path: Path) -> None:
    paths = write_pairs([3, 4])
    before = shards_state(ShardSet(paths))
    moved = [shutil.copy(path, tmp_path) for path in paths]
    os.utime(moved[0], (1, 1))
    assert reported(before, moved) == ""


def test_what_has_changed_is_reported(write_pairs: WritePairs) -> None:
    paths = write_pairs([3, 4, 5])
    before = shards_state(ShardSet(paths))
    content = bytearray(Path(paths[1]).read_bytes())
    content[600] ^= 1  # a byte of the first picture: keys and sizes are as they were
    Path(paths[1]).write_bytes(content)
    assert reported(before, paths) == "other content in '00001.tar'"
    shutil.copy(paths[2], paths[0])
    assert reported(before, paths) == "other content in '00000.tar', '00001.tar'; 14 pairs, not 12"
    assert reported(before, paths[2:]) == "gone: '00000.tar', '00001.tar'; 5 pairs, not 12"
    assert reported(shards_state(ShardSet(paths[2:])), paths[1:]) == "new: '00001.tar'; 9 pairs, not 5"
    assert reported(shards_state(ShardSet(paths)), paths[::-1]) == "another order of the shards"
    many = {"pairs": 1, "names": [f"{shard}.tar" for shard in range(9)], "kinds": ["1 samples"] * 9}
    assert "gone: '0.tar', '1.tar', '2.tar' and 6 more" in reported(many, paths)


@pytest.mark.parametrize("path", ["https://server/a/00000.tar?key=secret", "00000.tar"])
def test_shards_that_are_counted_are_not_opened(path: str) -> None:
    state = shards_state(ShardSet([path], counts=np.array([7])))
    assert state == {"pairs": 7, "names": ["00000.tar"], "kinds": ["7 samples"]}
