"""What design calls hostile input: each of it read, none of it believed."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from untrigger.contracts import UserMistake
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.shards import ShardSet, expand_shards, index, samples, shard_set
from untrigger.datamodules.shards.samples import decode_caption, decode_label, decode_picture


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
    scans: list[str] = []
    scan = index._scan
    monkeypatch.setattr(index, "_scan", lambda path, *rest: scans.append(path) or scan(path, *rest))  # type: ignore[func-returns-value]
    again = index.index_shard(path)
    assert scans == []
    assert again.keys == first.keys
    np.testing.assert_array_equal(again.offsets, first.offsets)
    os.utime(path, ns=(0, 0))
    assert index.index_shard(path).keys == first.keys
    assert scans == [path]


def test_a_broken_cache_is_scanned_again(write_pairs: Callable[..., list[str]]) -> None:
    (path,) = write_pairs([4])
    index.index_shard(path)
    for cached in index.cache_folder("index").iterdir():
        cached.write_bytes(cached.read_bytes()[:100])
    assert len(index.index_shard(path).keys) == 4


def test_selection_restricts_to_keys(write_pairs: Callable[..., list[str]]) -> None:
    shards = ShardSet(write_pairs([3, 4, 2]))
    chosen = shards.select({"k0001", "k0006", "k0008", "nobody"})
    assert chosen.counts.tolist() == [1, 1, 1]
    assert [chosen.key(shard, 0) for shard in range(3)] == ["k0001", "k0006", "k0008"]
    assert chosen.read(2, 0, "txt") == b"picture number 8"
    assert len(shards) == 9


def big_png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(10_000, 10_000), (30_000, 30_000)])
def test_a_hundred_megapixel_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(BadSample, match="picture too large"):
        decode_picture(big_png_header(*size), 32)


def test_other_formats_and_broken_files_are_bad_samples() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    for data in (eps, gif.getvalue(), b"", b"\xff\xd8\xff", png()[:60]):
        with pytest.raises(BadSample, match="broken picture"):
            decode_picture(data, 32)


def test_captions_and_labels_are_checked() -> None:
    assert decode_caption("  ein Bär \n".encode()) == "ein Bär"
    with pytest.raises(BadSample, match="not UTF-8"):
        decode_caption(b"\xff\xfe caption")
    with pytest.raises(BadSample, match="empty"):
        decode_caption(b" \n ")
    assert decode_label(b"3\n", 4) == 3
    for data in (b"4", b"-1", b"cat", "٣".encode()):
        with pytest.raises(BadSample, match="bad label"):
            decode_label(data, 4)


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


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (20, 60, slice(None), slice(20, 40)),
        (60, 20, slice(20, 40), slice(None)),
        (20, 61, slice(None), slice(20, 40)),  # half a pixel to the left
        (7, 7, slice(None), slice(None)),
        (1, 5, slice(None), slice(2, 3)),
    ],
)
def test_geometry_is_centre_cropped_and_resized_as_pillow_does(
    height: int, width: int, rows: slice, columns: slice
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels[rows, columns]).resize((10, 10), Image.Resampling.BICUBIC))
    found = decode_picture(encoded(pixels), 10)
    assert found.shape == (10, 10, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous  # as what is resized is, or a batch would not be channels-last
    differences = np.abs(found.astype(int) - expected)
    assert differences.max() <= 2
    assert (differences > 0).mean() <= 0.02


def test_a_picture_of_the_input_size_is_returned_as_it_is() -> None:
    same = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_picture(encoded(same), 16), same)


def test_a_large_jpeg_is_decoded_at_reduced_size_and_looks_the_same() -> None:
    rows, columns = np.mgrid[0:480, 0:640]
    pixels = np.stack([rows / 480 * 255, columns / 640 * 255, 128 + 0 * rows], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    full = Image.fromarray(pixels[:, 80:560]).resize((224, 224), Image.Resampling.BICUBIC)
    square = decode_picture(buffer.getvalue(), 224)
    assert np.abs(square.astype(int) - np.asarray(full).astype(int)).max() <= 6


def jpeg(**options: Any) -> bytes:
    """A noisy JPEG of 16 x 16."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(buffer, "JPEG", **options)
    return buffer.getvalue()


JPEGS = {
    "usual": jpeg(),
    "full colour": jpeg(quality=95, subsampling=0),
    "half colour": jpeg(subsampling=1),
    "progressive": jpeg(progressive=True),
    "optimised": jpeg(optimize=True),
    "restarts": jpeg(restart_marker_rows=1),
    "rgb": jpeg(keep_rgb=True),
    "grey": jpeg(mode="L"),
}


def as_pillow_has_it(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_of_the_input_size_takes_the_short_way_to_the_same_pixels(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = as_pillow_has_it(data)
    monkeypatch.setattr(Image, "open", None)
    np.testing.assert_array_equal(decode_picture(data, 16), expected)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"subsampling": 0},
    {"subsampling": 1},
    {"progressive": True},
    {"keep_rgb": True},
]


def the_long_way(data: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray | None:
    """What Pillow's decoder leads to, or None."""
    with monkeypatch.context() as patch:
        patch.setattr(samples, "decode_jpeg_header", Mock(side_effect=ValueError))
        try:
            return decode_picture(data, 16)
        except BadSample:
            return None


SIZES = [(15, 33), (16, 40), (31, 45), (32, 33), (63, 64), (64, 65), (129, 200), (3, 2)]


@pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(each) or "usual" for each in OPTIONS])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_jpeg_of_any_size_takes_the_short_way_to_the_same_pixels(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), "JPEG", **options)
    expected = the_long_way(data, monkeypatch)
    monkeypatch.setattr(samples, "opened_picture", None)
    np.testing.assert_array_equal(decode_picture(data, 16), expected)


@pytest.mark.parametrize("size", [(12, 14), (40, 35)], ids=str)
def test_a_damaged_jpeg_of_another_size_is_what_pillow_makes_of_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(1)
    whole = encoded(draws.integers(0, 256, (*size, 3), dtype=np.uint8), "JPEG")
    damaged = [whole[:end] for end in range(2, len(whole), 11)]
    for _ in range(300):
        changed = bytearray(whole)
        changed[draws.integers(2, len(whole))] = draws.integers(256)
        damaged.append(bytes(changed))
    expected = [the_long_way(data, monkeypatch) for data in damaged]
    assert 20 < sum(pixels is None for pixels in expected) < len(damaged) - 100
    for data, wanted in zip(damaged, expected, strict=True):
        if wanted is None:
            with pytest.raises(BadSample):
                decode_picture(data, 16)
        else:
            np.testing.assert_array_equal(decode_picture(data, 16), wanted)


def test_a_cmyk_jpeg_of_the_input_size_goes_the_long_way() -> None:
    data = jpeg(mode="CMYK")
    np.testing.assert_array_equal(decode_picture(data, 16), as_pillow_has_it(data))


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_damaged_jpeg_of_the_input_size_is_what_pillow_makes_of_it(data: bytes) -> None:
    draws = np.random.default_rng(1)
    damaged = [data[:end] for end in range(2, len(data), 7)]
    for _ in range(300):
        changed = bytearray(data)
        changed[draws.integers(2, len(data))] = draws.integers(256)
        damaged.append(bytes(changed))
    found, expected = [], []
    for case in damaged:
        expected.append(as_pillow_has_it(case))
        try:
            found.append(decode_picture(case, 16))
        except BadSample:
            found.append(None)
    assert sum(pixels is None for pixels in expected) > 20
    for pixels, wanted in zip(found, expected, strict=True):
        # A change of the size is resized by the one and not by the other.
        if wanted is None or wanted.shape == (16, 16, 3):
            np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    picture = Image.new("RGB", (8, 8), (200, 100, 50)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = picture.convert("I").convert("I;16")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode_picture(buffer.getvalue(), 8).shape == (8, 8, 3)


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
