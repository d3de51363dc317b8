from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.shards import RemoteShards, ShardSet, remote
from untrigger.datamodules.shards.cache import ShardCache
from untrigger.datamodules.shards.remote import ShardUnavailable


@pytest.fixture
def urls(write_pairs: Callable[..., list[str]], server: Any) -> list[str]:
    return [f"{server.url}/train/{Path(path).name}" for path in write_pairs([4, 4, 4])]


def cache(tmp_path: Path, **options: Any) -> ShardCache:
    return ShardCache(RemoteShards(**({"retries": 0, "timeout": 60.0, "cache": str(tmp_path / "copies")} | options)))


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "copies").glob("*.tar"))


def test_a_shard_is_fetched_once_however_many_want_it(urls: list[str], server: Any, tmp_path: Path) -> None:
    found: list[int] = []
    threads = [Thread(target=lambda: found.append(cache(tmp_path).open(urls[0]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "train" / "00000.tar").read_bytes()
    assert [os.pread(file, len(content) + 1, 0) for file in found] == [content] * 6
    assert server.asked["00000.tar"] == 1
    for file in found:
        os.close(file)


def test_what_is_read_stays_and_the_rest_is_evicted(urls: list[str], tmp_path: Path) -> None:
    kept = cache(tmp_path, cache_gb=0.0)
    first = kept.open(urls[0])
    os.close(kept.open(urls[1]))
    third = kept.open(urls[2])
    assert len(copies(tmp_path)) == 2
    os.close(first)
    os.close(kept.open(urls[1]))
    assert len(copies(tmp_path)) == 2
    os.close(third)


def test_the_least_recently_used_copy_goes_first_with_its_index(urls: list[str], server: Any, tmp_path: Path) -> None:
    size = (tmp_path / "train" / "00000.tar").stat().st_size
    kept = cache(tmp_path, cache_gb=3.5 * size / 1e9)
    for url in (urls[0], urls[1], urls[0]):
        file = kept.open(url)
        kept.index(url, file)
        os.close(file)
    tight = cache(tmp_path, cache_gb=2.9 * size / 1e9)
    os.close(tight.open(urls[2]))
    assert len(copies(tmp_path)) == 2
    assert len(list((tmp_path / "copies").glob("*.npz"))) == 2
    os.close(tight.open(urls[0]))
    assert server.asked == {"00000.tar": 1, "00001.tar": 1, "00002.tar": 1}


def test_nothing_is_left_of_a_failure_or_of_a_process_that_died(urls: list[str], server: Any, tmp_path: Path) -> None:
    kept = cache(tmp_path)
    server.faults["00000.tar"] = ["cut"]
    with pytest.raises(ShardUnavailable):
        kept.open(urls[0])
    assert list((tmp_path / "copies").iterdir()) == []
    file = kept.open(urls[0])
    (copy,) = copies(tmp_path)
    part = copy.with_suffix(".part")
    copy.rename(part)
    part.write_bytes(b"half")  # as a killed process leaves it: without a lock
    os.close(file)
    os.close(kept.open(urls[0]))
    assert copy.read_bytes() == (tmp_path / "train" / "00000.tar").read_bytes()


def test_one_who_waits_for_a_fetch_that_fails_fetches_itself(urls: list[str], tmp_path: Path) -> None:
    kept = cache(tmp_path)
    part = kept._copy(urls[0]).with_suffix(".part")
    part.parent.mkdir(parents=True)
    other = os.open(part, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    found: list[int] = []
    waiting = Thread(target=lambda: found.append(kept.open(urls[0])))
    waiting.start()
    waiting.join(0.3)
    assert not found
    part.unlink()
    os.close(other)
    waiting.join()
    os.close(found[0])
    assert len(copies(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_and_a_page_for_a_tar_are_reported(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("<html>Please log in. This is long enough for the header of a tar.</html>" * 20)
    url = f"{server.url}/file"
    with pytest.raises(UserMistake, match=r"a copy of shard http://.*/file cannot be kept"):
        ShardSet([url], remote=RemoteShards(cache=str(tmp_path / "file")))
    with pytest.raises(UserMistake, match=r"shard http://.*/file cannot be read .*is not an uncompressed tar"):
        ShardSet([url], remote=RemoteShards(cache=str(tmp_path / "copies")))


@pytest.mark.parametrize("fault", ["page", "short"])
def test_only_what_has_been_parsed_is_kept(fault: str, urls: list[str], server: Any, tmp_path: Path) -> None:
    server.faults["00000.tar"] = [fault]
    kept = cache(tmp_path, retries=1)
    file = kept.open(urls[0])
    assert os.fstat(file).st_size == (tmp_path / "train" / "00000.tar").stat().st_size
    assert len(kept.index(urls[0], file).keys) == 4
    assert len(list((tmp_path / "copies").iterdir())) == 2
    os.close(file)
    server.faults["00001.tar"] = [fault]
    said = "it looks like a web page" if fault == "page" else "it ends early"
    with pytest.raises(ShardUnavailable, match=said):
        cache(tmp_path).open(urls[1])
    assert len(list((tmp_path / "copies").iterdir())) == 2
    os.close(cache(tmp_path).open(urls[1]))


def test_a_shard_that_breaks_off_on_the_server_too_is_read_as_a_local_one(urls: list[str], tmp_path: Path) -> None:
    path = tmp_path / "train" / "00000.tar"
    os.truncate(path, ShardSet([str(path)])._shard(0).found.offsets[3, 0] + 5)
    shards = ShardSet([urls[0]], remote=RemoteShards(retries=1, cache=str(tmp_path / "copies")))
    assert (len(shards), shards.incomplete) == (3, 1)


def test_a_body_without_end_is_given_up(
    urls: list[str], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MIN_ROOM", 10 << 20)
    server.faults["00000.tar"] = ("endless",)
    with pytest.raises(ShardUnavailable, match=r"\(1 try in .*it does not end within 10,485,760 bytes"):
        cache(tmp_path, cache_gb=0.001, retries=3).open(urls[0])
    assert not list((tmp_path / "copies").iterdir())
