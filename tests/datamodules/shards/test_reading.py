"""What design calls hostile input: each of it read, none of it believed."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from untrigger.contracts import UserMistake
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.shards import ShardSet, expand_shards, index, shard_set
from untrigger.datamodules.shards.samples import decode_picture


def png(size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.target), "w")


def test_folders_patterns_and_lists_name_shards(write_pairs: Callable[..., list[str]], tmp_path: Path) -> None:
    paths = write_pairs([1, 1, 1])
    (tmp_path / "train" / "notes.txt").write_text("not a shard")
    assert expand_shards(str(tmp_path / "train")) == paths
    assert expand_shards(f"{tmp_path}/train/{{00001..00002}}.tar") == paths[1:]
    assert expand_shards([paths[2], paths[0]]) == [paths[2], paths[0]]
    named = tmp_path / "{0..1}" / "{a.tar"
    named.parent.mkdir()
    shutil.copy(paths[0], named)
    assert expand_shards(str(named)) == [str(named)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "pattern is empty"),
        ([], "no shards in"),
        ("missing/{0..1}.tar", r"missing/0\.tar does not exist"),
        ("missing/{0..1.tar", "does not exist|unbalanced"),
        ("file:/etc/passwd", "is no URL that is read"),
        ("local:///etc/passwd", "is no URL that is read"),
        ("s3://bucket/0.tar", "Install s3fs"),
        ("pipe:touch /tmp/x", "pipe: shards are refused"),
        ("missing/*.tar", r"missing/\*\.tar does not exist; wildcards are not expanded: name the folder, or a brace"),
        ("missing/{0..1}?.tar", "wildcards are not expanded"),
        ("{0..999999999}.tar", "stands for more than 1,000,000 shards"),
        ("{a,{0..9999}{0..9999}}.tar", "stands for more than 1,000,000 shards"),
        ("s{0..999999999}://bucket/{0..999999999999999999999}.tar", "stands for more than 1,000,000 shards"),
    ],
)
def test_a_wrong_shard_list_is_reported_in_one_line(spec: str | list[str], message: str) -> None:
    with pytest.raises(UserMistake, match=message) as error:
        expand_shards(spec)
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_a_shard_named_twice_are_mistakes(
    write_pairs: Callable[..., list[str]], tmp_path: Path
) -> None:
    (path,) = write_pairs([1])
    with pytest.raises(UserMistake, match="named twice"):
        expand_shards([path, path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserMistake, match=r"holds no \.tar"):
        expand_shards(str(tmp_path / "empty"))


def test_one_shard_by_two_paths_is_named_twice(write_pairs: Callable[..., list[str]], tmp_path: Path) -> None:
    paths = write_pairs([1, 1])
    link, folder = tmp_path / "link.tar", tmp_path / "linked"
    link.symlink_to(paths[1])
    folder.symlink_to(tmp_path / "train")
    for other in (str(link), str(folder / "00001.tar"), f"{tmp_path}/train/../train/00001.tar"):
        with pytest.raises(UserMistake, match=r"is named twice, as .*train/00001\.tar too"):
            expand_shards([*paths, other])
    assert expand_shards([paths[0], str(link)]) == [paths[0], str(link)]


def test_a_path_with_a_colon_is_no_url(
    write_pairs: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs([1, 1], folder="cc:v1")
    monkeypatch.chdir(tmp_path)
    paths = ["cc:v1/00000.tar", "cc:v1/00001.tar"]
    assert [expand_shards(spec) for spec in ("cc:v1", "cc:v1/{00000..00001}.tar", paths)] == [paths] * 3
    with pytest.raises(UserMistake, match="is no URL that is read"):
        expand_shards("cc:v2")


def test_other_archives_of_a_folder_are_told(
    write_pairs: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = write_pairs([1])
    assert expand_shards(str(tmp_path / "train")) == [path]
    assert not caplog.messages
    for name in ("1.TAR", "2.tar.gz", "3.tgz", ".4.tgz", "notes.txt"):
        (tmp_path / "train" / name).touch()
    assert expand_shards(str(tmp_path / "train")) == [path]
    (said,) = caplog.messages
    assert "3 such as 1.TAR: a shard is an uncompressed .tar" in said
    Path(path).unlink()
    with pytest.raises(UserMistake, match=r"holds no \.tar file, but 3 such as 1\.TAR"):
        expand_shards(str(tmp_path / "train"))


def test_a_pipe_runs_only_when_allowed(write_pairs: Callable[..., list[str]], tmp_path: Path) -> None:
    (path,) = write_pairs([3])
    url = f"pipe:cat {path}; touch {tmp_path}/ran"
    with pytest.raises(UserMistake):
        expand_shards(url)
    assert not (tmp_path / "ran").exists()
    shards = expand_shards(url, allow_pipe=True)
    assert not (tmp_path / "ran").exists()
    assert len(ShardSet(shards)) == 3
    assert (tmp_path / "ran").exists()


def test_environment_variables_in_a_path_are_not_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", str(tmp_path))
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(UserMistake, match=r"\$\{SECRET\}/0.tar"):
        expand_shards("${SECRET}/0.tar")


def test_only_known_members_are_read(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    target = tmp_path / "executed"
    members = {
        "pkl": pickle.dumps(Bomb(target)),
        "pyd": pickle.dumps(Bomb(target)),
        "pth": pickle.dumps(Bomb(target)),
        "png": png(),
        "txt": b"a caption",
    }
    shards = ShardSet([write_shard(tmp_path / "0.tar", [("a", members)])])
    assert shards.read(0, 0, "txt") == b"a caption"
    decode_picture(shards.read(0, 0, "picture"), 32)
    assert not target.exists()
    with pytest.raises(ValueError, match="not in tuple"):
        shards.read(0, 0, "pkl")


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("a.txt", tarfile.SYMTYPE), ("a.png", tarfile.LNKTYPE), ("b.txt", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert len(ShardSet([str(path)])) == 0


def test_a_compressed_tar_is_refused(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    plain = Path(write_shard(tmp_path / "plain.tar", [("a", {"png": png(), "txt": b"x"})]))
    path = tmp_path / "0.tar"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UserMistake, match="not an uncompressed tar"):
        ShardSet([str(path)])


def test_keys_with_dots_do_not_merge(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    samples = [("my.a", {"png": png(), "txt": b"first"}), ("my.b", {"png": png(), "txt": b"second"})]
    shards = ShardSet([write_shard(tmp_path / "0.tar", samples)])
    assert next(iter(shards.captions())) == (["my.a", "my.b"], ["first", "second"])


def test_a_truncated_tar_gives_what_is_whole_and_counts_the_rest(
    tmp_path: Path, write_pairs: Callable[..., list[str]]
) -> None:
    (path,) = write_pairs([6])
    data = Path(path).read_bytes()
    last = int(index.index_shard(path).offsets[5, 1])  # of the last caption
    for end in (last + 3, last, last - 200, last - 512, last - 1100):
        cut = tmp_path / f"{end}.tar"
        cut.write_bytes(data[:end])
        shards = ShardSet([str(cut)])
        assert 0 < len(shards) < 6
        assert shards.incomplete >= 1
        for position in range(len(shards)):
            decode_picture(shards.read(0, position, "picture"), 32)


def test_incomplete_samples_are_left_out_and_counted(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    samples = [("a", {"png": png()}), ("b", {"txt": b"x"}), ("c", {"txt": b"x", "png": png()}), ("d", {"json": b"{}"})]
    shards = ShardSet([write_shard(tmp_path / "0.tar", samples)])
    assert (len(shards), shards.incomplete, shards.key(0, 0)) == (1, 3, "c")


def test_the_index_is_read_from_the_cache_until_the_file_changes(
    write_pairs: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_pairs([4])
    first = index.index_shard(path)
    assert index.index_shard(path) is first  # as long as somebody holds it
    keys, offsets = list(first.keys), first.offsets.copy()
    del first
    scans: list[str] = []
    scan = index._scan
    monkeypatch.setattr(index, "_scan", lambda path, *rest: scans.append(path) or scan(path, *rest))  # type: ignore[func-returns-value]
    again = index.index_shard(path)
    assert scans == []
    assert again.keys == keys
    np.testing.assert_array_equal(again.offsets, offsets)
    os.utime(path, ns=(0, 0))
    assert index.index_shard(path) is not again
    assert index.index_shard(path).keys == keys
    assert scans == [path]


def test_a_broken_cache_is_scanned_again(write_pairs: Callable[..., list[str]]) -> None:
    (path,) = write_pairs([4])
    index.index_shard(path)
    for cached in index.cache_folder("index").iterdir():
        cached.write_bytes(cached.read_bytes()[:100])
    assert len(index.index_shard(path).keys) == 4


def test_keys_that_a_cached_index_cannot_hold_are_scanned_again(write_pairs: Callable[..., list[str]]) -> None:
    (path,) = write_pairs([4])
    keys = list(index.index_shard(path).keys)
    (cached,) = index.cache_folder("index").iterdir()
    with np.load(cached) as arrays:
        changed = {**arrays, "ends": arrays["ends"][::-1].copy()}
    with cached.open("wb") as handle:
        np.savez(handle, **changed)
    assert index.index_shard(path).keys == keys


def test_a_shard_that_was_replaced_by_a_shorter_one_is_named(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    def shard(keys: str) -> str:
        return write_shard(tmp_path / "0.tar", [(key, {"jpg": b"x", "txt": b"x"}) for key in keys])

    part = ShardSet([shard("abcdefgh")]).select(["a", "e", "h"])
    shard("abc")
    # As long as the part is, whose keys it would be taken for.
    with pytest.raises(UserMistake, match=r"0\.tar was replaced by one of fewer samples"):
        list(part.keys())


def test_selection_restricts_to_keys(write_pairs: Callable[..., list[str]]) -> None:
    shards = ShardSet(write_pairs([3, 4, 2]))
    chosen = shards.select({"k0001", "k0006", "k0008", "nobody"})
    assert chosen.counts.tolist() == [1, 1, 1]
    assert [chosen.key(shard, 0) for shard in range(3)] == ["k0001", "k0006", "k0008"]
    assert chosen.read(2, 0, "txt") == b"picture number 8"
    assert len(shards) == 9


def test_an_oversized_caption_is_a_bad_sample(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    shards = ShardSet([write_shard(tmp_path / "0.tar", [("a", {"png": png(), "txt": b"x" * 70_000})])])
    with pytest.raises(BadSample, match="oversized txt"):
        shards.read(0, 0, "txt")


def test_members_that_lie_far_apart_are_read_too(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    members = {"png": png(), "bin": bytes(1 << 17), "txt": b"far away"}
    shards = ShardSet([write_shard(tmp_path / "0.tar", [("a", members), ("b", {"png": png((8, 8)), "txt": b"near"})])])
    assert shards.read_members(0, 0, "txt", "picture") == [b"far away", png()]
    assert shards.read_members(0, 1, "picture", "txt") == [png((8, 8)), b"near"]


def test_a_shard_that_gets_shorter_while_it_is_read_makes_bad_samples(
    tmp_path: Path, write_shard: Callable[..., str]
) -> None:
    path = write_shard(tmp_path / "0.tar", [("a", {"png": png(), "txt": b"a caption"})])
    shards = ShardSet([path])
    shards.key(0, 0)  # opens it
    os.truncate(path, int(index.index_shard(path).offsets[0, 1]) + 2)
    with pytest.raises(BadSample, match="txt ends early"):
        shards.read_members(0, 0, "picture", "txt")


def test_a_few_keys_are_found_without_a_pass_over_all_shards(
    write_pairs: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_set, "_OPEN_SHARDS", 2)
    shards = ShardSet(write_pairs([3, 4, 0, 5, 2, 3]))
    every = {key: (shard, position) for shard, keys in enumerate(shards.keys()) for position, key in enumerate(keys)}
    assert shards.locate(["k0011", "k0001", "missing"]) == {"k0001": (0, 1), "k0011": (3, 4)}
    assert shards.locate(every) == every
    opened: list[str] = []
    read = shard_set.index_shard
    monkeypatch.setattr(shard_set, "index_shard", lambda path: opened.append(path) or read(path))
    assert shards.locate(["k0008"]) == {"k0008": (3, 1)}
    few = shards.select(["k0000", "k0009", "k0010"])
    assert set(opened) <= {shards.paths[0], shards.paths[3]}
    assert few.counts.tolist() == [1, 0, 0, 2, 0, 0]
    assert few.locate(["k0010", "k0001"]) == {"k0010": (3, 1)}
    *_, last = shards.without(["k0000", "k0016"]).keys()
    assert last == ["k0014", "k0015"]
