from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_files import members

from untrigger.contracts import UserMistake
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.shards.encoded import EncodedPicture, check_picture, encode_picture
from untrigger.datamodules.shards.writer import (
    Labelled,
    Pair,
    Skipped,
    open_shard,
    write_training_shards,
    write_zero_shot_set,
)


def picture_bytes(format: str, width: int = 9, height: int = 7) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def pairs(count: int) -> Iterator[Pair]:
    picture = check_picture(picture_bytes("JPEG"))
    return (Pair(picture, f"caption {number}") for number in range(count))


def labelled(*labels: int) -> list[Labelled]:
    picture = check_picture(picture_bytes("WEBP"))
    return [Labelled(picture, label) for label in labels]


@pytest.mark.parametrize(("format", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_encoded_pictures_are_copied_as_they_are(tmp_path: Path, format: str, extension: str) -> None:
    data = picture_bytes(format)
    write_training_shards(tmp_path, [Pair(check_picture(data), "Größe <b>\n; rm", {"label": 3})], 10)
    written = members(tmp_path / "00000.tar")
    assert list(written) == sorted(f"000000000.{suffix}" for suffix in (extension, "json", "txt"))
    assert written[f"000000000.{extension}"] == data
    assert written["000000000.txt"].decode() == "Größe <b>\n; rm"
    assert json.loads(written["000000000.json"]) == {
        "key": "000000000",
        "caption": "Größe <b>\n; rm",
        "status": "success",
        "width": 9,
        "height": 7,
        "label": 3,
    }


def test_skipped_samples_take_a_key_and_are_counted(tmp_path: Path) -> None:
    rows: list[Pair | Skipped] = list(pairs(7))
    rows[1] = Skipped("broken picture", "line 2")
    rows[6] = Skipped("broken picture", "line 7")
    assert write_training_shards(tmp_path, rows, 3) == 3
    texts = [
        {name: data for name, data in members(tmp_path / f"0000{n}.tar").items() if "txt" in name} for n in range(3)
    ]
    assert texts == [
        {"000000000.txt": b"caption 0", "000000002.txt": b"caption 2"},
        {"000010000.txt": b"caption 3", "000010001.txt": b"caption 4", "000010002.txt": b"caption 5"},
        {},
    ]
    stats = [json.loads((tmp_path / f"0000{n}_stats.json").read_text()) for n in range(3)]
    assert stats == [{"count": 3, "successes": 2}, {"count": 3, "successes": 3}, {"count": 1, "successes": 0}]


def test_a_full_last_shard_has_no_empty_one_after_it(tmp_path: Path) -> None:
    assert write_training_shards(tmp_path, pairs(4), 2) == 2
    assert visible(tmp_path) == ["00000.tar", "00000_stats.json", "00001.tar", "00001_stats.json"]


def test_keys_stay_unique_in_large_shards(tmp_path: Path) -> None:
    rows: list[Pair | Skipped] = [Skipped("broken picture", "")] * 10_003
    for index, pair in zip((0, 1, 1000, 9_999, 10_000, 10_001, 10_002), pairs(7), strict=True):
        rows[index] = pair
    write_training_shards(tmp_path, rows, 10_002)
    keys = [[name for name in members(tmp_path / f"0000{n}.tar") if "txt" in name] for n in range(2)]
    assert keys == [[f"00000{n:05d}.txt" for n in (0, 1, 1000, 9_999, 10_000, 10_001)], ["0000100000.txt"]]


def test_equal_input_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_training_shards(tmp_path / "a", pairs(3), 2)
    monkeypatch.setattr("time.time", lambda: 12345.0)
    write_training_shards(tmp_path / "b", pairs(3), 2)
    for name in visible(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a" / "00000.tar", "r:") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Pair]:
        yield from pairs(5)
        raise RuntimeError("the disk of the source is gone")

    with pytest.raises(RuntimeError, match="the disk of the source is gone"):
        write_training_shards(tmp_path, failing(), 2)
    assert visible(tmp_path) == []


def test_whatever_the_moment_only_whole_shards_are_there(tmp_path: Path) -> None:
    """What a killed run leaves is what stands there between any two samples."""
    seen = []

    def watching() -> Iterator[Pair]:
        for pair in pairs(7):
            seen.append([len(members(shard)) for shard in sorted(tmp_path.glob("*.tar"))])
            yield pair

    write_training_shards(tmp_path, watching(), 3)
    assert seen == [[], [], [], [9], [9], [9], [9, 9]]


def test_a_shard_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with open_shard(path) as shard:
        shard.write({"__key__": "a/b", "jpg": b"picture"})
        assert not path.exists()
    with contextlib.suppress(KeyboardInterrupt), open_shard(path) as shard:
        shard.write({"__key__": "c", "jpg": b"another"})
        raise KeyboardInterrupt
    assert members(path) == {"a/b.jpg": b"picture"}
    assert visible(tmp_path) == ["00000.tar"]


def test_nothing_but_bytes_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes"), open_shard(tmp_path / "a.tar") as shard:
        shard.write({"__key__": "a", "pyd": {"would": "be pickled"}})
    assert visible(tmp_path) == []


def test_training_shards_need_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserMistake, match="is not empty"):
        write_training_shards(tmp_path, pairs(1), 2)
    with pytest.raises(UserMistake, match="is a file"):
        write_training_shards(tmp_path / "mine.txt", pairs(1), 2)
    with pytest.raises(UserMistake, match="shard size is 0"):
        write_training_shards(tmp_path / "new", pairs(1), 0)
    assert visible(tmp_path) == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_zero_shot_set_has_the_layout_of_clip_benchmark(tmp_path: Path) -> None:
    rows: list[Labelled | Skipped] = [*labelled(0, 1, 1), Skipped("broken picture", ""), *labelled(0)]
    assert write_zero_shot_set(tmp_path, rows, ["sea lion", "dog"], ["a {c}.", "the {c}."], shard_size=2) == 3
    assert visible(tmp_path) == [
        "classnames.txt",
        "test/0.tar",
        "test/1.tar",
        "test/2.tar",
        "test/nshards.txt",
        "zeroshot_classification_templates.txt",
    ]
    assert (tmp_path / "classnames.txt").read_text().splitlines() == ["sea lion", "dog"]
    assert (tmp_path / "zeroshot_classification_templates.txt").read_text().splitlines() == ["a {c}.", "the {c}."]
    assert int((tmp_path / "test" / "nshards.txt").read_text()) == 3
    classes = {
        name: data for n in range(3) for name, data in members(tmp_path / f"test/{n}.tar").items() if "cls" in name
    }
    assert classes == {"s0000000.cls": b"0", "s0000001.cls": b"1", "s0000002.cls": b"1", "s0000004.cls": b"0"}
    assert members(tmp_path / "test/2.tar")["s0000004.webp"] == picture_bytes("WEBP")


def test_zero_shot_set_goes_beside_folders_but_not_over_files(tmp_path: Path) -> None:
    write_training_shards(tmp_path / "train", pairs(1), 1)
    write_zero_shot_set(tmp_path, labelled(0), ["a"], ["{c}"])
    before = {name: (tmp_path / name).read_bytes() for name in visible(tmp_path)}
    for split in ("test", "val"):
        with pytest.raises(UserMistake, match=r"classnames\.txt differs from what would be written"):
            write_zero_shot_set(tmp_path, labelled(0), ["b"], ["{c}"], split)
        with pytest.raises(UserMistake, match=r"zeroshot_classification_templates\.txt differs"):
            write_zero_shot_set(tmp_path, labelled(0), ["a"], ["the {c}"], split)
    with pytest.raises(UserMistake, match="test is not empty"):
        write_zero_shot_set(tmp_path, labelled(0), ["a"], ["{c}"])
    (tmp_path / "other" / "test").mkdir(parents=True)
    (tmp_path / "other" / "test" / "0.tar").touch()
    with pytest.raises(UserMistake, match="is not empty"):
        write_zero_shot_set(tmp_path / "other", labelled(0), ["b"], ["{c}"])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_zero_shot_set_gains_a_split(tmp_path: Path) -> None:
    write_zero_shot_set(tmp_path, labelled(0, 1), ["a", "b"], ["{c}"])
    before = {name: (tmp_path / name).read_bytes() for name in visible(tmp_path)}
    write_zero_shot_set(tmp_path, labelled(1, 1, 0), ["a", "b"], ["{c}"], "train", shard_size=2)
    assert [name for name in visible(tmp_path) if name not in before] == [
        "train/0.tar",
        "train/1.tar",
        "train/nshards.txt",
    ]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert members(tmp_path / "train/1.tar")["s0000002.cls"] == b"0"


def test_a_split_that_fails_leaves_the_set_as_it_was(tmp_path: Path) -> None:
    write_zero_shot_set(tmp_path, labelled(0, 1), ["a", "b"], ["{c}"])
    before = visible(tmp_path)
    with pytest.raises(ValueError, match="label 2"):
        write_zero_shot_set(tmp_path, labelled(1, 2), ["a", "b"], ["{c}"], "train", shard_size=1)
    assert visible(tmp_path) == before


def test_a_folder_with_files_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserMistake, match=r"holds files already but no classnames\.txt"):
        write_zero_shot_set(tmp_path, labelled(0), ["a"], ["{c}"])


def test_a_wrong_label_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label 2, but there are 2 classes"):
        write_zero_shot_set(tmp_path, labelled(0, 1, 2), ["a", "b"], ["{c}"], shard_size=1)
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    ("classnames", "templates", "split", "said"),
    [
        ([], ["{c}"], "test", "no classes"),
        (["dog\ncat"], ["{c}"], "test", "one line"),
        ([""], ["{c}"], "test", "one line"),
        (["\x1b[2J"], ["{c}"], "test", "one line"),
        (["dog"], [], "test", "there is none"),
        (["dog"], ["a photo of a dog"], "test", "has no {c}"),
        (["dog"], ["a {c} {0.__class__}"], "test", "another brace than {c}"),
        (["dog"], ["{c}"], "../test", "names a folder"),
        (["dog"], ["{c}"], "..", "names a folder"),
    ],
)
def test_zero_shot_mistakes(tmp_path: Path, classnames: list[str], templates: list[str], split: str, said: str) -> None:
    with pytest.raises(UserMistake, match=said) as caught:
        write_zero_shot_set(tmp_path / "set", labelled(0), classnames, templates, split)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_broken_pictures_are_found(tmp_path: Path) -> None:
    whole = picture_bytes("JPEG", 640, 480)
    assert check_picture(whole) == EncodedPicture(whole, "jpg", 640, 480)
    truncated = [data[: len(data) * 3 // 4] for data in (whole, picture_bytes("PNG", 99), picture_bytes("WEBP", 99))]
    for data in [*truncated, b"", b"<svg/>"]:
        with pytest.raises(BadSample, match="broken picture"):
            check_picture(data)


def test_tiny_pictures_are_no_broken_ones() -> None:
    for format in ("JPEG", "PNG", "WEBP"):
        assert check_picture(picture_bytes(format, 1, 1))[2:] == (1, 1)


def test_the_pixel_limit_comes_before_the_pixels() -> None:
    stream = io.BytesIO()
    Image.new("1", (5001, 5000)).save(stream, "PNG")
    with pytest.raises(BadSample, match="picture too large: 5001 x 5000"):
        check_picture(stream.getvalue())
    with pytest.raises(BadSample, match="picture too large"):
        encode_picture(Image.new("L", (5001, 5000)))


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "RGBA", "CMYK", "F"])
def test_decoded_pictures_become_png_without_loss(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    encoded = encode_picture(picture)
    assert encoded[1:] == ("png", 4, 5)
    with Image.open(io.BytesIO(encoded.data), formats=["PNG"]) as read:
        assert np.array_equal(np.asarray(read.convert("RGB")), np.asarray(picture.convert("RGB")))
