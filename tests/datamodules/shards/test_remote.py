"""Against a real server that stalls, hangs up and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from untrigger.contracts import UserMistake
from untrigger.datamodules.shards import RemoteShards, ShardSet, expand_shards
from untrigger.datamodules.shards.remote import ShardUnavailable, fetch, redacted
from untrigger.datamodules.shards.tar import tar_members

QUICK = RemoteShards(retries=1, timeout=1.0)
ONCE = RemoteShards(retries=0, timeout=0.3)
FAULTS = ["503", "stall", "cut", "part"]


@pytest.fixture
def shard(write_pairs: Callable[..., list[str]]) -> Path:
    return Path(write_pairs([3])[0])


@pytest.mark.parametrize("fault", [*FAULTS, "429"])
def test_a_fault_is_overcome_by_trying_again(fault: str, server: Any, shard: Path, tmp_path: Path) -> None:
    server.faults["00000.tar"] = [fault]
    fetch(f"{server.url}/train/00000.tar", tmp_path / "copy", QUICK)
    assert (tmp_path / "copy").read_bytes() == shard.read_bytes()
    assert server.asked["00000.tar"] == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_told_with_the_shard(fault: str, server: Any, shard: Path, tmp_path: Path) -> None:
    server.faults["00000.tar"] = (fault,)
    with pytest.raises(ShardUnavailable, match=r"http://.*/train/00000\.tar cannot be read \(2 tries in") as error:
        fetch(f"{server.url}/train/00000.tar", tmp_path / "copy", QUICK)
    assert "\n" not in str(error.value)
    assert str(error.value).rpartition(": ")[2]


def test_a_shard_comes_as_it_lies_there_and_is_never_unpacked(server: Any, shard: Path, tmp_path: Path) -> None:
    server.faults["00000.tar"] = ["gzip", "zipped"]
    fetch(f"{server.url}/train/00000.tar", tmp_path / "copy", QUICK)
    assert (tmp_path / "copy").read_bytes() == shard.read_bytes()
    fetch(f"{server.url}/train/00000.tar", tmp_path / "packed", QUICK)
    assert (tmp_path / "packed").read_bytes()[:2] == b"\x1f\x8b"
    with pytest.raises(UserMistake, match=r"packed is not an uncompressed tar.*gzip"):
        list(tar_members(str(tmp_path / "packed")))


def test_a_server_that_drips_is_given_up(server: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1000))
    server.faults["large"] = ("drip",)
    with pytest.raises(ShardUnavailable, match=r"(bytes in|no data for) 0\.3 s"):
        fetch(f"{server.url}/large", tmp_path / "copy", ONCE)


@pytest.mark.parametrize(("name", "fault"), [("nothing.tar", ""), ("00000.tar", "403"), ("00000.tar", "404")])
def test_what_another_try_would_not_change_is_not_tried_again(
    name: str, fault: str, server: Any, shard: Path, tmp_path: Path
) -> None:
    server.faults[name] = (fault,)
    with pytest.raises(ShardUnavailable, match=r"\(1 try in"):
        fetch(f"{server.url}/train/{name}", tmp_path / "copy", RemoteShards(retries=5))
    assert server.asked[name] == 1


def test_no_message_has_the_secrets_of_a_url(server: Any, tmp_path: Path) -> None:
    server.faults["0.tar"] = ("503",)
    url = server.url.replace("//", "//me:password@") + "/0.tar?signature=secret"
    with pytest.raises(ShardUnavailable) as error:
        fetch(url, tmp_path / "copy", ONCE)
    assert "password" not in str(error.value)
    assert "secret" not in str(error.value)
    assert redacted("s3://me:pw@bucket/0.tar?a=b was tried") == "s3://bucket/0.tar was tried"
    with pytest.raises(UserMistake) as error:
        expand_shards([url, url])
    assert "secret" not in str(error.value)


class Store(LocalFileSystem):
    """An object store whose library knows no time limit."""

    protocol = "s3"
    stalls = False

    def get_file(self, rpath: str, lpath: str, callback: Any = None, **arguments: Any) -> None:
        if Store.stalls:
            import time

            time.sleep(60)
        super().get_file(rpath.partition("://")[2], lpath, callback=callback)


def test_object_stores_are_read_through_fsspec_and_given_up_when_they_stall(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("s3", Store, clobber=True)
    url = f"s3://{shard}"
    assert expand_shards(url) == [url]
    shards = ShardSet([url], remote=RemoteShards(cache=str(tmp_path / "copies")))
    assert list(shards.keys()) == [["k0000", "k0001", "k0002"]]
    monkeypatch.setattr(Store, "stalls", True)
    with pytest.raises(ShardUnavailable, match=r"0 bytes in 0\.3 s"):
        fetch(url, tmp_path / "copy", ONCE)


def test_a_pipe_that_fails_is_reported(tmp_path: Path, shard: Path) -> None:
    fetch(f"pipe:cat {shard}", tmp_path / "copy", ONCE)
    assert (tmp_path / "copy").read_bytes() == shard.read_bytes()
    for command in ("false", f"cat {shard}; exit 3", "true"):
        with pytest.raises(ShardUnavailable, match="shard pipe:"):
            fetch(f"pipe:{command}", tmp_path / "copy", ONCE)


def test_a_url_is_never_a_command(tmp_path: Path, server: Any) -> None:
    url = f"{server.url}/0.tar';touch {tmp_path}/ran;'"
    with pytest.raises(ShardUnavailable):
        fetch(url, tmp_path / "copy", ONCE)
    assert not (tmp_path / "ran").exists()


def test_brace_patterns_of_urls_are_expanded_and_nothing_is_asked(server: Any) -> None:
    assert expand_shards(f"{server.url}/{{000..002}}.tar") == [f"{server.url}/{shard:03d}.tar" for shard in range(3)]
    assert not server.asked


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"timeout": 0.0}, {"cache_gb": -1.0}])
def test_options_out_of_range_are_reported(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserMistake, match=r"data\.remote"):
        RemoteShards(**wrong)
