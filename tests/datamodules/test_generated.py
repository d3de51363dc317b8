from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from shard_files import files, members

from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import COLOURS, OUTLINES, TEMPLATES, write_generated_data


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    write_generated_data(folder, 400, 203, shard_size=150)
    return folder


def test_layouts(data: Path) -> None:
    assert list(files(data)) == [
        "classnames.txt",
        "test/0.tar",
        "test/1.tar",
        "test/nshards.txt",
        "train/00000.tar",
        "train/00000_stats.json",
        "train/00001.tar",
        "train/00001_stats.json",
        "train/00002.tar",
        "train/00002_stats.json",
        "zeroshot_classification_templates.txt",
    ]
    assert (data / "classnames.txt").read_text().splitlines() == list(OUTLINES)
    assert (data / "zeroshot_classification_templates.txt").read_text().splitlines() == list(TEMPLATES)
    assert (data / "test" / "nshards.txt").read_text() == "2"
    assert json.loads((data / "train" / "00002_stats.json").read_text()) == {"count": 100, "successes": 100}


def test_classes_are_balanced_and_mixed(data: Path) -> None:
    test = members(*sorted(data.glob("test/*.tar")))
    labels = [int(value) for name, value in test.items() if name.endswith(".cls")]
    counts = Counter(labels)
    assert sum(counts.values()) == 203
    assert set(counts) == set(range(len(OUTLINES)))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert labels != sorted(labels)
    train = members(*sorted(data.glob("train/*.tar")))
    labels = [json.loads(value)["label"] for name, value in train.items() if name.endswith(".json")]
    assert set(Counter(labels).values()) == {40}


def test_captions_name_their_class_alone(data: Path) -> None:
    train = members(*sorted(data.glob("train/*.tar")))
    coloured = 0
    used = set()
    for name, value in train.items():
        if name.endswith(".json"):
            meta = json.loads(value)
            caption = train[name.replace("json", "txt")].decode()
            words = caption.rstrip(".").split()
            assert [word for word in words if word in OUTLINES] == [list(OUTLINES)[meta["label"]]]
            colours = [word for word in words if word in COLOURS]
            coloured += len(colours)
            used.add(caption)
    assert 150 < coloured < 250
    assert len(used) > 150


def test_pictures_differ_in_size_position_and_colour(data: Path) -> None:
    """Where the picture is a circle, a box around what differs from the border's colour."""
    test = members(*sorted(data.glob("test/*.tar")))
    circle = str(list(OUTLINES).index("circle")).encode()
    found = [
        pixels(test[name[:-3] + "jpg"]) for name, value in test.items() if name.endswith("cls") and value == circle
    ]
    sizes, centres, colours = [], [], []
    for picture in found:
        assert picture.shape == (32, 32, 3)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        inside = np.linalg.norm(picture - np.median(border, axis=0), axis=-1) > 75
        rows, columns = np.nonzero(inside)
        sizes.append(np.sqrt(4 * inside.sum() / np.pi))
        centres.append((rows.mean(), columns.mean()))
        colours.append(tuple((np.median(picture[inside], axis=0) // 64).astype(int)))
    assert np.ptp(sizes) > 5
    assert min(np.ptp(centres, axis=0)) > 8
    assert len(set(colours)) >= 4
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in found}) == len(found)


def test_train_and_test_do_not_share_pictures(data: Path) -> None:
    parts = [
        {value for name, value in members(*sorted(data.glob(pattern))).items() if name.endswith("jpg")}
        for pattern in ("train/*.tar", "test/*.tar")
    ]
    assert len(parts[0]) == 400
    assert not parts[0] & parts[1]


def test_the_seed_decides_every_byte(data: Path, tmp_path: Path) -> None:
    write_generated_data(tmp_path / "same", 400, 203, shard_size=150)
    assert files(tmp_path / "same") == files(data)
    write_generated_data(tmp_path / "other", 400, 203, seed=1, shard_size=150)
    other = files(tmp_path / "other")
    assert all(other[name] != value for name, value in files(data).items() if name.endswith(".tar"))


def test_image_size(tmp_path: Path) -> None:
    write_generated_data(tmp_path, 3, 2, image_size=50)
    pictures = [
        value
        for name, value in members(tmp_path / "train/00000.tar", tmp_path / "test/0.tar").items()
        if name.endswith("jpg")
    ]
    assert [pixels(data).shape for data in pictures] == [(50, 50, 3)] * 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train_pairs": 0, "test_pairs": 1}, "train_pairs is 0"),
        ({"train_pairs": 1, "test_pairs": 0}, "test_pairs is 0"),
        ({"train_pairs": 1, "test_pairs": 1, "image_size": 8}, "image_size is 8"),
    ],
)
def test_numbers_that_are_too_small(tmp_path: Path, arguments: dict[str, int], said: str) -> None:
    with pytest.raises(UserMistake, match=said):
        write_generated_data(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_taken_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine").write_text("keep")
    with pytest.raises(UserMistake, match="is not empty"):
        write_generated_data(tmp_path, 1, 1)
    assert files(tmp_path) == {"train/mine": b"keep"}
