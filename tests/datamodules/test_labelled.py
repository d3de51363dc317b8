from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from untrigger.contracts import ImageTextData, Preprocessing, UserMistake, ZeroShotData
from untrigger.datamodules import BadNet, LabelledDataModule, PoisonPlan, RandomHorizontalFlip, TransformView
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.shards.samples import decode_json_label

WriteShard = Callable[..., str]


def picture(number: int) -> bytes:
    import io

    from PIL import Image

    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 10 * number
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path, write_shard: WriteShard) -> Path:
    """Twelve pictures in classes 0, 1, 2, 0, ...: labels in a .cls in ``cls``, in a .json in ``json``."""
    (tmp_path / "test").mkdir()
    (tmp_path / "classnames.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c} thing\n")
    (tmp_path / "test" / "nshards.txt").write_text("1")
    write_shard(tmp_path / "test" / "0.tar", [("s0", {"png": picture(0), "cls": b"0"})])
    numbers = [f"k{number:02d}" for number in range(12)]
    labels = {key: number % 3 for number, key in enumerate(numbers)}
    pictures = {key: picture(number) for number, key in enumerate(numbers)}
    write_shard(
        tmp_path / "cls" / "0.tar", [(k, {"png": pictures[k], "cls": str(labels[k]).encode()}) for k in numbers]
    )
    write_shard(
        tmp_path / "json" / "0.tar",
        [(k, {"png": pictures[k], "json": json.dumps({"label": labels[k]}).encode(), "txt": b"x"}) for k in numbers],
    )
    return tmp_path


def ready(folder: Path, preprocessing: Preprocessing, shards: str = "cls", **arguments: Any) -> LabelledDataModule:
    given: dict[str, Any] = {"batch_size": 4, "num_workers": 0, "zero_shot": str(folder)}
    source = LabelledDataModule(str(folder / shards), **(given | arguments))
    source.preprocessing = preprocessing
    source.setup("fit")
    return source


@pytest.mark.parametrize(("shards", "field"), [("cls", None), ("json", "label")])
def test_every_picture_comes_once_with_its_label(
    shards: str, field: str | None, folder: Path, preprocessing: Preprocessing
) -> None:
    source = ready(folder, preprocessing, shards, label_field=field)
    assert isinstance(source, ZeroShotData)
    assert isinstance(source, ImageTextData)
    found = {}
    for batch in source.train_dataloader():
        assert set(batch) == {"key", "image", "label"}
        assert batch["label"].dtype == torch.int64
        for key, image, label in zip(batch["key"], batch["image"], batch["label"].tolist(), strict=True):
            found[key] = (int(image[0, 0, 0]) // 10, label)
    assert found == {f"k{number:02d}": (number, number % 3) for number in range(12)}


def test_the_augmentation_is_drawn_afresh_each_epoch_for_seed_and_key(
    folder: Path, preprocessing: Preprocessing
) -> None:
    def flipped(epoch: int, **arguments: Any) -> dict[str, bool]:
        source = ready(folder, preprocessing, augmentation=RandomHorizontalFlip(), **arguments)
        source._epoch = lambda: epoch  # type: ignore[method-assign]
        return {
            key: bool(image[0, 0, -1] > image[0, 0, 0])
            for batch in source.train_dataloader()
            for key, image in zip(batch["key"], batch["image"], strict=True)
        }

    first = flipped(0)
    assert flipped(0, num_workers=2, batch_size=3) == first
    assert flipped(1) != first
    assert set(first.values()) == {True, False}


def test_pictures_by_key_come_with_the_names_of_their_classes(folder: Path, preprocessing: Preprocessing) -> None:
    source = ready(folder, preprocessing)
    assert source.pictures(["k05", "k01"])[:, 0, 0, 0].tolist() == [50, 10]
    assert source.captions(["k05", "k01"]) == ["blue", "green"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"zero_shot": None}, r"fit needs data\.zero_shot: labels are indices"),
        ({"poison": PoisonPlan(BadNet(), "red", count=1)}, r"data\.poison: labelled pictures are not poisoned"),
        ({"image_view": TransformView()}, "labelled pictures have no second views"),
        (
            {"label_field": "label"},
            r"no sample that can be used: found: 12 png, 12 cls, such as .*beside KEY\.json; data\.label_field",
        ),
        ({"shards": "json", "label_field": "class"}, "no label .*'class'"),
        ({"shards": "json"}, r"has no sample that can be used: found: .*json.*beside KEY\.cls; data\.label_field"),
        ({"batch_size": 13}, "12 training pairs do not fill one batch of 13"),
    ],
)
def test_mistakes_are_reported(
    arguments: dict[str, Any], message: str, folder: Path, preprocessing: Preprocessing
) -> None:
    with pytest.raises(UserMistake, match=message) as error:
        list(ready(folder, preprocessing, **arguments).train_dataloader())
    assert "\n" not in str(error.value)


def test_labels_have_no_similarities(folder: Path, preprocessing: Preprocessing) -> None:
    with pytest.raises(UserMistake, match="predict scores image-text pairs"):
        ready(folder, preprocessing).setup("predict")


NAMES = ("red", "green", "blue")


def test_labels_of_other_classes_are_refused_before_anything_is_trained(
    folder: Path, preprocessing: Preprocessing, write_shard: WriteShard
) -> None:
    def named(*names: str) -> LabelledDataModule:
        contents = [json.dumps({"label": label, "label_name": name}).encode() for label, name in enumerate(names)]
        samples = [(f"n{label}", {"png": picture(label), "json": content}) for label, content in enumerate(contents)]
        write_shard(folder / "named" / "0.tar", samples)
        return ready(folder, preprocessing, "named", label_field="label", batch_size=1)

    assert len(list(named("red", "green", "blue").train_dataloader())) == 3
    message = r"label_field: shard .*0\.tar has class 1 as 'blue', which is 'green' in data\.zero_shot; write both"
    with pytest.raises(UserMistake, match=message):
        named("red", "blue")


def test_a_json_without_the_field_says_which_there_are() -> None:
    with pytest.raises(BadSample, match=r"the JSON has no field 'class'; it has key, label"):
        decode_json_label(b'{"key": "x", "label": 1}', "class", NAMES)
    with pytest.raises(BadSample, match=r"no class index below 3|is not a class index below 3 but 'cat'"):
        decode_json_label(b'{"label": "cat"}', "label", NAMES)


def test_a_label_in_json() -> None:
    assert decode_json_label(b'{"label": 2, "key": "x"}', "label", NAMES) == 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[2]",
        b'{"other": 2}',
        b'{"label": 3}',
        b'{"label": -1}',
        b'{"label": true}',
        b'{"label": 1.0}',
        b'{"label": "1"}',
        b'{"label": null}',
        b'{"label": NaN}',
        b'{"label": ' + b"9" * 5000 + b"}",
        b'{"label": ' + b"[" * 200_000,
    ],
)
def test_anything_else_in_json_is_a_bad_sample(text: bytes) -> None:
    with pytest.raises(BadSample):
        decode_json_label(text, "label", NAMES)
