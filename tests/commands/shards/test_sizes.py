from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from untrigger import cli
from untrigger.contracts import UserMistake
from untrigger.datamodules.shards import RemoteShards
from untrigger.datamodules.shards.counts import read_counts


def test_sizes_are_what_a_run_can_read(
    write_pairs: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_pairs([3, 5])
    (tmp_path / "train" / "00001.tar").write_bytes((tmp_path / "train" / "00001.tar").read_bytes()[:5000])
    cli.run(["shards", "sizes", str(tmp_path / "train"), str(tmp_path / "sizes.json")])
    sizes = json.loads((tmp_path / "sizes.json").read_text())
    assert list(sizes) == ["00000.tar", "00001.tar"]
    assert read_counts(str(tmp_path / "sizes.json"), paths, RemoteShards()).tolist() == list(sizes.values())
    assert sizes["00000.tar"] == 3
    assert 0 < sizes["00001.tar"] < 5
    said = capsys.readouterr().out
    assert f"{3 + sizes['00001.tar']} pairs in 2 shards" in said
    assert "end early" in said


def test_shards_of_one_name_are_refused(write_pairs: Callable[..., list[str]], tmp_path: Path) -> None:
    write_pairs([1], folder="a")
    write_pairs([1], folder="b")
    with pytest.raises(UserMistake, match="the same file name"):
        cli.run(["shards", "sizes", f"{tmp_path}/{{a,b}}/00000.tar", str(tmp_path / "sizes.json")])
