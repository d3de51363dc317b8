from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_files import files, members

from untrigger.commands.shards.command import COMMAND, shards_from_csv, shards_from_folder, shards_from_torchvision
from untrigger.contracts import UserMistake


def save_picture(path: Path, number: int = 0, size: tuple[int, int] = (8, 6)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def by_suffix(folder: Path, suffix: str) -> dict[str, bytes]:
    found = members(*sorted(folder.glob("*.tar")))
    return {name.partition(".")[0]: data for name, data in found.items() if name.endswith(f".{suffix}")}


def write_table(path: Path, rows: list[list[str]], header: tuple[str, ...] = ("image", "caption")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(header), *rows])
    return path


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    """Three pictures of a ``sea_lion`` and five of a ``dog``, and what is no picture."""
    folder = tmp_path / "pets"
    for number in range(3):
        save_picture(folder / "sea_lion" / "deep" / f"{number}.jpg", number)
    for number in range(5):
        save_picture(folder / "dog" / f"{number}.png", 10 + number)
    (folder / "dog" / "notes.txt").write_text("not a picture")
    (folder / "dog" / "._0.png").write_bytes(b"what a Mac leaves behind")
    save_picture(folder / ".thumbnails" / "0.png")
    return folder


def test_csv_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absolute = save_picture(tmp_path / "elsewhere" / "b.png", 1)
    pictures = [save_picture(tmp_path / "table" / "images" / "a.jpg", 0), absolute, absolute]
    captions = ['a "quoted", caption', "two \r\n\n lines\n", "ünïcode 日本"]
    paths = ["images/a.jpg", str(tmp_path / "elsewhere" / "b.png"), "../elsewhere/b.png"]
    table = write_table(tmp_path / "table" / "pairs.csv", [list(row) for row in zip(paths, captions, strict=True)])
    shards_from_csv(table, tmp_path / "out", shard_size=2)
    assert sorted(files(tmp_path / "out")) == ["00000.tar", "00000_stats.json", "00001.tar", "00001_stats.json"]
    keys = ["000000000", "000000001", "000010000"]
    texts = by_suffix(tmp_path / "out", "txt")
    assert {key: text.decode() for key, text in texts.items()} == dict(
        zip(keys, ['a "quoted", caption', "two lines", "ünïcode 日本"], strict=True)
    )
    found = by_suffix(tmp_path / "out", "jpg") | by_suffix(tmp_path / "out", "png")
    assert found == dict(zip(keys, pictures, strict=True))
    said = capsys.readouterr()
    assert said.out == (
        f"{table}: captions of several lines, written as one line each: 1\n"
        f"wrote 3 pictures in 2 shards to {tmp_path / 'out'}; skipped 0\n"
    )
    assert "writing shards" in said.err


def test_csv_with_other_columns_and_delimiter(tmp_path: Path) -> None:
    save_picture(tmp_path / "a, b.png")
    (tmp_path / "pairs.tsv").write_text("id\ttitle\tfilepath\n7\ta dog, and more\ta, b.png\n", encoding="utf-8-sig")
    for name, delimiter in (("one", "tab"), ("two", "\t")):
        shards_from_csv(tmp_path / "pairs.tsv", tmp_path / name, "filepath", "title", delimiter)
        assert by_suffix(tmp_path / name, "txt") == {"000000000": b"a dog, and more"}


def test_bad_rows_are_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = save_picture(tmp_path / "good.jpg", size=(64, 64))
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    save_picture(tmp_path / "tracked.bmp")
    rows = {
        "good.jpg": "a fine picture",
        "cut.jpg": "broken",
        "script.jpg": "broken",
        "tracked.bmp": "unsupported",
        "bomb.png": "too large",
        "pipe.jpg": "missing",
        "none.jpg": "missing",
        "": "missing",
        "../" * 40 + "etc/none": "missing",
        "a" * 5000: "missing",
        "with\0nul.jpg": "missing",
        "pipe:touch owned": "missing",
        "\x1b[2Jterminal": "missing",
    }
    table = write_table(tmp_path / "pairs.csv", [[path, caption] for path, caption in rows.items()])
    with table.open("ab") as file:
        file.write(b"good.jpg,  \r\ngood.jpg\r\ngood.jpg,\xff\xfe\r\n")
    shards_from_csv(table, tmp_path / "out", max_bad_share=0.95)
    assert by_suffix(tmp_path / "out", "txt") == {"000000000": b"a fine picture"}
    assert json.loads((tmp_path / "out" / "00000_stats.json").read_text()) == {"count": 16, "successes": 1}
    said = capsys.readouterr().out
    assert said == (
        f"wrote 1 pictures in 1 shards to {tmp_path / 'out'}; skipped 15 (broken picture 2, "
        "unsupported format (BMP) 1, picture too large 1, missing picture 8, empty caption 2, caption is not UTF-8 1): "
        "convert the ones of an unsupported format to JPEG, PNG or WebP\n"
    )
    assert not (tmp_path / "owned").exists()


def test_hostile_captions_name_no_file(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    captions = ["../../escaped", "/tmp/escaped", "=HYPERLINK()", "<script>", "a.b.c", "\x1b[31mred"]
    table = write_table(tmp_path / "pairs.csv", [["a.png", caption] for caption in captions])
    shards_from_csv(table, tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == ["00000.tar", "00000_stats.json"]
    names = set(members(tmp_path / "out" / "00000.tar"))
    assert names == {f"00000{n:04d}.{suffix}" for n in range(6) for suffix in ("png", "txt", "json")}
    assert [text.decode() for text in by_suffix(tmp_path / "out", "txt").values()] == captions


def test_too_many_bad_rows_end_the_run_and_leave_nothing(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    rows = [["a.png", "good"]] * 197 + [["\x1b[2J\n.png", "bad"]] * 3
    table = write_table(tmp_path / "pairs.csv", rows)
    with pytest.raises(
        UserMistake, match=r"3 of 200 samples .*missing picture 3.*line 200.*max_bad_share 0\.01"
    ) as caught:
        shards_from_csv(table, tmp_path / "out", shard_size=10)
    assert "\x1b" not in str(caught.value)
    assert files(tmp_path / "out") == {}
    write_table(table, rows[:-1] + rows[:3])
    shards_from_csv(table, tmp_path / "out", shard_size=10)
    assert len(by_suffix(tmp_path / "out", "txt")) == 200


def test_whole_pictures_of_other_formats_are_to_be_converted_and_not_repaired(tmp_path: Path) -> None:
    for suffix in ("bmp", "gif", "tif"):
        save_picture(tmp_path / "pets" / "cat" / f"0.{suffix}")
    save_picture(tmp_path / "pets" / "cat" / "0.png")
    with pytest.raises(
        UserMistake, match=r"\(unsupported format \((BMP|GIF|TIFF)\) 1\).*: convert them to JPEG, PNG or WebP, or raise"
    ) as caught:
        shards_from_folder(tmp_path / "pets", tmp_path / "out")
    assert "repair" not in str(caught.value)
    (tmp_path / "pets" / "cat" / "0.png").write_bytes(b"broken")
    with pytest.raises(UserMistake, match="repair them, convert those of an unsupported format to JPEG, PNG or WebP"):
        shards_from_folder(tmp_path / "pets", tmp_path / "out", max_bad_share=0.8)


@pytest.mark.parametrize("rows", [[], [["none.png", "a"], ["none.png", "b"]]])
def test_nothing_to_write(tmp_path: Path, rows: list[list[str]]) -> None:
    with pytest.raises(UserMistake, match=f"there are {len(rows)} samples and none can be used"):
        shards_from_csv(write_table(tmp_path / "pairs.csv", rows), tmp_path / "out", max_bad_share=1)
    assert files(tmp_path / "out") == {}


def test_a_folder_in_use_stays_as_it_is(tmp_path: Path, class_folder: Path) -> None:
    save_picture(tmp_path / "a.png")
    table = write_table(tmp_path / "pairs.csv", [["a.png", "good"]])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00000.tar").write_text("keep")
    with pytest.raises(UserMistake, match="is not empty"):
        shards_from_csv(table, tmp_path / "out")
    for zero_shot in (False, True):
        with pytest.raises(UserMistake, match="give an output folder"):
            shards_from_folder(class_folder, tmp_path / "out", zero_shot)
    assert files(tmp_path / "out") == {"00000.tar": b"keep"}


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (None, {}, "is not a file"),
        (b"path,title\na.png,x\n", {}, r"no column 'image': its columns are \['path', 'title'\]"),
        (b"image,title\na.png,x\n", {}, r"no column 'caption'"),
        (b"", {}, r"no column 'image': its columns are \[\]"),
        (b"image,caption\n", {"delimiter": ";;"}, "must be one character"),
        (b"image,caption\n", {"delimiter": ""}, "must be one character"),
        (b"image,caption\n", {"max_bad_share": 1.5}, "between 0 and 1"),
        (b'image,caption\na.png,"open' + b"x" * 140_000, {}, "is not CSV after line 1"),
        (b"image,caption\na.png,x\n", {"shard_size": 0}, "shard size is 0"),
        (b"image;caption\na.png;x\n", {}, "its cells seem to be parted by a semicolon"),
        (b'image,caption\na,"x\na,y\na,z"\na.png,x\n', {}, "opened in line 2 is closed in line 4 only"),
        (b'caption,image\n"x,a\ny,a\nz",a.png\n', {}, "opened in line 2 is closed in line 4 only"),
    ],
)
def test_csv_mistakes(tmp_path: Path, content: bytes | None, options: dict[str, object], said: str) -> None:
    (tmp_path / "a").write_bytes(save_picture(tmp_path / "a.png"))
    if content is not None:
        (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(UserMistake, match=said) as caught:
        shards_from_csv(tmp_path / "pairs.csv", tmp_path / "out", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_folder_as_training_shards(tmp_path: Path, class_folder: Path) -> None:
    (tmp_path / "templates.txt").write_text("a photo of a {c}.\n\nthe {c}\n")
    shards_from_folder(class_folder, tmp_path / "out", templates=tmp_path / "templates.txt", shard_size=3)
    texts = [text.decode() for text in by_suffix(tmp_path / "out", "txt").values()]
    possible = {
        f"{start}{name}{end}" for name in ("dog", "sea lion") for start, end in (("a photo of a ", "."), ("the ", ""))
    }
    assert set(texts) <= possible
    assert Counter("dog" in text for text in texts) == {True: 5, False: 3}
    assert ["dog" in text for text in texts] not in ([True] * 5 + [False] * 3, [False] * 3 + [True] * 5)
    metas = [json.loads(meta) for meta in by_suffix(tmp_path / "out", "json").values()]
    assert [meta["label"] for meta in metas] == ["sea lion" in text for text in texts]
    pictures = set(by_suffix(tmp_path / "out", "jpg").values()) | set(by_suffix(tmp_path / "out", "png").values())
    sources = {
        data for name, data in files(class_folder).items() if name.startswith(("dog/", "sea")) and "/0" not in name
    }
    assert pictures - sources <= {
        (class_folder / "dog/0.png").read_bytes(),
        (class_folder / "sea_lion/deep/0.jpg").read_bytes(),
    }
    assert len(pictures) == 8


def test_folder_as_zero_shot_set(tmp_path: Path, class_folder: Path) -> None:
    shards_from_folder(class_folder, tmp_path / "set", zero_shot=True, shard_size=5)
    assert (tmp_path / "set" / "classnames.txt").read_text().splitlines() == ["dog", "sea lion"]
    assert (tmp_path / "set" / "test" / "nshards.txt").read_text() == "2"
    assert "a photo of a {c}." in (tmp_path / "set" / "zeroshot_classification_templates.txt").read_text().splitlines()
    found = members(*(tmp_path / "set" / "test" / f"{n}.tar" for n in range(2)))
    for label, extension, folder, count in ((b"0", "png", "dog", 5), (b"1", "jpg", "sea_lion/deep", 3)):
        keys = [name.partition(".")[0] for name, data in found.items() if name.endswith(".cls") and data == label]
        pictures = {found[f"{key}.{extension}"] for key in keys}
        assert pictures == {(class_folder / folder / f"{n}.{extension}").read_bytes() for n in range(count)}


def test_folder_split_and_class_names_from_a_file(tmp_path: Path, class_folder: Path) -> None:
    (tmp_path / "names.txt").write_text("puppy\nseal\n")
    shards_from_folder(class_folder, tmp_path / "set", True, "val", classnames=tmp_path / "names.txt")
    assert (tmp_path / "set" / "classnames.txt").read_text().splitlines() == ["puppy", "seal"]
    assert sorted(path.name for path in (tmp_path / "set" / "val").iterdir()) == ["0.tar", "nshards.txt"]


def test_the_seed_decides_order_and_captions(tmp_path: Path, class_folder: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shards_from_folder(class_folder, tmp_path / name, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert by_suffix(tmp_path / "a", "txt") != by_suffix(tmp_path / "c", "txt")


def test_folder_mistakes(tmp_path: Path, class_folder: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserMistake, match="is not a folder"):
        shards_from_folder(tmp_path / "none", out)
    with pytest.raises(UserMistake, match="has no sub-folders"):
        shards_from_folder(class_folder / "sea_lion" / "deep", out)
    (tmp_path / "lines.txt").write_text("only one\n")
    with pytest.raises(UserMistake, match=r"has 1 class names, but .* has 2 classes"):
        shards_from_folder(class_folder, out, classnames=tmp_path / "lines.txt")
    with pytest.raises(UserMistake, match=r"template 'only one' has no {c}"):
        shards_from_folder(class_folder, out, templates=tmp_path / "lines.txt")
    with pytest.raises(UserMistake, match="cannot be read"):
        shards_from_folder(class_folder, out, templates=tmp_path / "none.txt")
    with pytest.raises(UserMistake, match="names a folder inside the set"):
        shards_from_folder(class_folder, out, True, "../test")
    (tmp_path / "lines.txt").write_text("puppy\n\nseal\n")
    with pytest.raises(UserMistake, match="line 2 of 3 is blank"):
        shards_from_folder(class_folder, out, classnames=tmp_path / "lines.txt")
    assert not out.exists()


def test_a_line_of_a_file_is_a_class_whatever_the_names(tmp_path: Path, class_folder: Path) -> None:
    for number, (text, written) in enumerate(
        [
            ("missile\nmissile\n", "missile\nmissile\n"),
            ("\ufeffpuppy\r\nseal", "puppy\nseal\n"),
            ("snow\u2028fox\nc\u0301a\u200cn\n", "snow fox\nc\u0301a\u200cn\n"),
        ]
    ):
        (tmp_path / "names.txt").write_bytes(text.encode())
        out = tmp_path / str(number)
        shards_from_folder(class_folder, out, True, classnames=tmp_path / "names.txt")
        assert (out / "classnames.txt").read_bytes() == written.encode()


FAKE = {"size": 40, "image_size": [3, 9, 7], "num_classes": 4}


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("ant\nbee\ncat\ndog\n")
    return path


def test_torchvision_as_training_shards(tmp_path: Path, names: Path) -> None:
    from torchvision.datasets import FakeData

    shards_from_torchvision("FakeData", tmp_path / "out", dataset_args=FAKE, classnames=names, shard_size=30)
    source = FakeData(size=40, image_size=(3, 9, 7), num_classes=4)
    expected = Counter((np.asarray(picture).tobytes(), int(label)) for picture, label in source)
    pictures, metas, texts = (by_suffix(tmp_path / "out", suffix) for suffix in ("png", "json", "txt"))
    found: Counter[tuple[bytes, int]] = Counter()
    for key, data in pictures.items():
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            meta = json.loads(metas[key])
            found[np.asarray(picture).tobytes(), meta["label"]] += 1
        assert ["ant", "bee", "cat", "dog"][meta["label"]] in texts[key].decode()
        assert meta["caption"] == texts[key].decode()
    assert found == expected
    assert len(set(texts.values())) > 10


def test_torchvision_as_zero_shot_set(tmp_path: Path, names: Path) -> None:
    shards_from_torchvision("FakeData", tmp_path / "set", dataset_args=FAKE, zero_shot=True, classnames=names)
    labels = [int(label) for label in by_suffix(tmp_path / "set" / "test", "cls").values()]
    assert len(labels) == 40
    assert set(labels) == {0, 1, 2, 3}
    assert (tmp_path / "set" / "classnames.txt").read_text().splitlines() == ["ant", "bee", "cat", "dog"]


def test_torchvision_copies_files_and_takes_its_class_names(tmp_path: Path, class_folder: Path) -> None:
    (class_folder / ".thumbnails" / "0.png").unlink()
    (class_folder / ".thumbnails").rmdir()
    (class_folder / "dog" / "._0.png").unlink()
    shards_from_torchvision("ImageFolder", tmp_path / "set", class_folder, zero_shot=True)
    assert (tmp_path / "set" / "classnames.txt").read_text().splitlines() == ["dog", "sea lion"]
    sources = {path.read_bytes() for path in class_folder.rglob("*.??g")}
    pictures = [*by_suffix(tmp_path / "set/test", "png").values(), *by_suffix(tmp_path / "set/test", "jpg").values()]
    assert len(pictures) == 8
    assert set(pictures) == sources


def test_torchvision_reads_the_split_that_is_asked_for(tmp_path: Path) -> None:
    """MNIST's files, of two training pictures and one test picture."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, values in (("train", [3, 7]), ("t10k", [5])):
        pixels = np.repeat(np.array(values, np.uint8), 28 * 28)
        head = np.array([2051, len(values), 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([2049, len(values)], ">i4").tobytes() + bytes(values))
    shards_from_torchvision("MNIST", tmp_path / "train", tmp_path / "data")
    assert sorted(json.loads(meta)["label"] for meta in by_suffix(tmp_path / "train", "json").values()) == [3, 7]
    shards_from_torchvision("MNIST", tmp_path / "set", tmp_path / "data", zero_shot=True)
    assert by_suffix(tmp_path / "set" / "test", "cls") == {"s0000000": b"5"}
    assert (tmp_path / "set" / "classnames.txt").read_text().splitlines()[5] == "5 - five"
    with pytest.raises(UserMistake, match="has no split 'val': it has train and test"):
        shards_from_torchvision("MNIST", tmp_path / "val", tmp_path / "data", "val")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("CIFAR01", {}, "no dataset 'CIFAR01'; near it: .*CIFAR10"),
        ("__doc__", {}, "no dataset"),
        ("CIFAR10", {}, "--download true fetches it"),
        ("FakeData", {}, "has no class names: give them with --classnames"),
        ("FakeData", {"dataset_args": {"colour": 1}}, "unexpected keyword"),
        ("FakeData", {"dataset_args": FAKE | {"num_classes": 9}, "classnames": "names"}, "there are 4 class names"),
    ],
)
def test_torchvision_mistakes(tmp_path: Path, names: Path, name: str, options: dict[str, object], said: str) -> None:
    if "classnames" in options:
        options = options | {"classnames": names}
    with pytest.raises(UserMistake, match=said) as caught:
        shards_from_torchvision(name, tmp_path / "out", tmp_path / "data", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "out") == {}


def test_each_command_runs_from_a_command_line(tmp_path: Path, class_folder: Path, names: Path) -> None:
    save_picture(tmp_path / "a.png")
    table = write_table(tmp_path / "pairs.csv", [["a.png", "good"], ["none.png", "bad"]])
    fake = ["--dataset_args.size=3", "--dataset_args.num_classes=4", "--dataset_args.image_size=[3,8,8]"]
    lines = {
        "csv": [str(table), "--max_bad_share=0.5"],
        "folder": [str(class_folder), "--shard_size=4"],
        "torchvision": ["FakeData", *fake, f"--classnames={names}", "--download=false"],
        "sizes": [str(tmp_path / "out" / "folder")],
    }
    assert set(lines) == set(COMMAND.commands)
    for name, (source, *options) in lines.items():
        assert COMMAND.run("untrigger shards", [name, source, str(tmp_path / "out" / name), *options]) == 0
    sizes = json.loads((tmp_path / "out" / "sizes").read_text())
    assert sum(sizes.values()) == 8
    del lines["sizes"]
    assert {name: len(by_suffix(tmp_path / "out" / name, "txt")) for name in lines} == {
        "csv": 1,
        "folder": 8,
        "torchvision": 3,
    }
