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


def test_nothing_but_earlier_counts_is_replaced(write_pairs: Callable[..., list[str]], tmp_path: Path) -> None:
    first, second = write_pairs([2, 3])
    stats = tmp_path / "00000_stats.json"
    stats.write_text('{"count": 2, "successes": 2}')
    for output in (second, str(stats), str(tmp_path)):
        with pytest.raises(UserMistake, match=r"is there already and holds no counts: give a new file") as caught:
            cli.run(["shards", "sizes", first, output])
        assert "\n" not in str(caught.value)
    assert Path(second).stat().st_size > 2048
    assert "successes" in stats.read_text()
    sizes = str(tmp_path / "sizes.json")
    for shards in (first, str(tmp_path / "train")):
        cli.run(["shards", "sizes", shards, sizes])
    assert json.loads(Path(sizes).read_text()) == {"00000.tar": 2, "00001.tar": 3}
