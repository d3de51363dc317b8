from __future__ import annotations

import json
import logging
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.order import ShuffledOrder
from untrigger.datamodules.shards import RemoteShards, ShardSet, expand_shards
from untrigger.datamodules.shards.counts import read_counts

REMOTE = RemoteShards(retries=0, timeout=60.0)
WritePairs = Callable[..., list[str]]


def test_counts_are_read_from_a_number_from_stats_and_from_sizes(
    write_pairs: WritePairs, tmp_path: Path, server: Any
) -> None:
    paths = write_pairs([3, 5])
    for path, count in zip(paths, (3, 5), strict=True):
        Path(path.replace(".tar", "_stats.json")).write_text(json.dumps({"count": 9, "successes": count}))
    (tmp_path / "sizes.json").write_text(json.dumps({"00000.tar": 3, "00001.tar": 5, "other.tar": 1}))
    urls = [f"{server.url}/train/0000{shard}.tar?key=secret" for shard in range(2)]
    for given in ("stats", str(tmp_path / "sizes.json"), f"{server.url}/sizes.json"):
        for shards in (paths, urls):
            assert read_counts(given, shards, REMOTE).tolist() == [3, 5]
    assert read_counts(7, urls, REMOTE).tolist() == [7, 7]
    assert not {name for name in server.asked if name.endswith(".tar")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"00000.tar": 3}', r"sizes\.json does not say how many pairs 00001\.tar has"),
        ('{"00000.tar": 3, "00001.tar": "5"}', r"00001\.tar says '5', which is no number of pairs"),
        ('{"00000.tar": 3, "00001.tar": -1}', "says -1"),
        ("[3, 5]", "no JSON object"),
        ("{", "it is not JSON"),
    ],
)
def test_wrong_sizes_are_reported_in_one_line(
    content: str, message: str, write_pairs: WritePairs, tmp_path: Path
) -> None:
    (tmp_path / "sizes.json").write_text(content)
    with pytest.raises(UserMistake, match=message) as error:
        read_counts(str(tmp_path / "sizes.json"), write_pairs([3, 5]), REMOTE)
    assert "\n" not in str(error.value)


def test_missing_counts_are_reported(write_pairs: WritePairs, server: Any, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"data\.counts: .*00000_stats\.json cannot be read: it does not exist"):
        read_counts("stats", write_pairs([3]), REMOTE)
    with pytest.raises(UserMistake, match=r"data\.counts: shard http://.*00000_stats\.json cannot be read"):
        read_counts("stats", [f"{server.url}/train/00000.tar"], REMOTE)
    with pytest.raises(UserMistake, match=r"data\.counts: .*nowhere\.json cannot be read"):
        read_counts("nowhere.json", ["0.tar"], REMOTE)


def test_a_counted_list_of_100_000_shards_is_set_up_without_opening_or_looking_at_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "sizes.json").write_text(json.dumps({f"{shard:05d}.tar": 1000 + shard % 7 for shard in range(100_000)}))
    names = [f"{shard:05d}.tar" for shard in range(100_000)]
    looks: list[str] = []
    listdir, stat, opened = os.listdir, os.stat, os.open
    monkeypatch.setattr(os, "listdir", lambda path: names if str(path).endswith("train") else listdir(path))
    monkeypatch.setattr(os, "stat", lambda path, **options: looks.append(str(path)) or stat(path, **options))
    monkeypatch.setattr(os, "open", lambda path, *options: looks.append(str(path)) or opened(path, *options))
    monkeypatch.setattr(tarfile, "open", lambda *options: pytest.fail("a shard was opened"))
    paths = expand_shards(f"{tmp_path}/train/{{00000..99999}}.tar")
    shards = ShardSet(paths, counts=read_counts(str(tmp_path / "sizes.json"), paths, REMOTE))
    order = ShuffledOrder(shards.counts, 256, 0, rank=3, world_size=8)
    positions = order.share(0, 1, 4).batch(5)
    monkeypatch.undo()
    assert not [path for path in looks if path.removesuffix(".tar")[-5:].isdigit()]
    assert len(shards) == sum(1000 + shard % 7 for shard in range(100_000))
    assert (positions[:, 1] < shards.counts[positions[:, 0]]).all()


def test_a_counted_set_is_the_indexed_one(write_pairs: WritePairs) -> None:
    paths = write_pairs([3, 5])
    indexed, counted = ShardSet(paths), ShardSet(paths, counts=np.array([3, 5]))
    assert counted.counts.tolist() == indexed.counts.tolist()
    assert list(counted.captions()) == list(indexed.captions())
    assert counted.select(["k0004"]).counts.tolist() == [0, 1]


def test_counts_that_are_too_high_are_bad_samples_and_too_low_ones_are_reported(
    write_pairs: WritePairs, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_pairs([3, 5])
    shards = ShardSet(paths, counts=np.array([4, 4]))
    assert shards.read(0, 2, "txt") == b"picture number 2"
    with pytest.raises(BadSample, match="fewer samples than counted: 3, not 4"):
        shards.read(0, 3, "txt")
    assert shards.key(0, 3) == ""
    with caplog.at_level(logging.WARNING):
        shards.read(1, 0, "txt")
        shards.read(1, 1, "txt")
    (record,) = caplog.records
    assert f"shard {paths[1]} has 5 samples, not 4 as counted" in record.getMessage()
