from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from untrigger.contracts import Preprocessing, UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.excluded import excluded_keys
from untrigger.datamodules.poisoning import Poison, write_manifest
from untrigger.datamodules.shards import ShardSet

WritePairs = Callable[..., list[str]]


def ready(preprocessing: Preprocessing, **arguments: Any) -> ImageTextDataModule:
    data = ImageTextDataModule(**({"num_workers": 0, "batch_size": 1} | arguments))
    data.preprocessing = preprocessing
    data.setup("fit")
    return data


def streamed(data: ImageTextDataModule) -> list[str]:
    return sorted(key for batch in data.train_dataloader() for key in batch["key"])


@pytest.fixture
def paths(write_pairs: WritePairs) -> list[str]:
    return write_pairs([10, 14, 3])


@pytest.fixture
def poison(paths: list[str]) -> Poison:
    plans = [PoisonPlan(BadNet(size=4), "green", count=5), PoisonPlan(BadNet(size=6), "red", count=4)]
    return Poison.from_plans(plans, ShardSet(paths))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_poisoned_pairs_of_a_run_never_appear_and_all_others_do(
    paths: list[str], poison: Poison, preprocessing: Preprocessing, tmp_path: Path, workers: int
) -> None:
    manifest = tmp_path / "poison.json"
    write_manifest(poison, manifest)
    poisoned = {key for keys in poison.keys for key in keys}
    assert len(poisoned) == 9
    data = ready(preprocessing, train_shards=paths, exclude=str(manifest), num_workers=workers)
    expected = sorted({f"k{number:04d}" for number in range(27)} - poisoned)
    assert streamed(data) == expected
    # The same in the next pass, and in the pass that scores every pair.
    assert streamed(data) == expected
    assert sorted(key for batch in data.predict_dataloader() for key in batch["key"]) == expected
    with pytest.raises(UserMistake, match="have no sample 'k"):
        data.captions([min(poisoned)])
    data.select([*expected[:3], *poisoned])
    assert streamed(data) == expected[:3]


def test_pairs_are_left_out_after_the_poisoning(
    paths: list[str], poison: Poison, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    first, second = (sorted(keys) for keys in poison.keys)
    write_manifest(poison, tmp_path / "poison.json")
    (tmp_path / "found.txt").write_text("\n".join([*first, *second[:1]]) + "\n\n")
    data = ready(
        preprocessing, train_shards=paths, poison=str(tmp_path / "poison.json"), exclude=str(tmp_path / "found.txt")
    )
    assert data._pairs.poison is not None
    assert [sorted(keys) for keys in data._pairs.poison.keys] == [[], second[1:]]
    clean = ready(preprocessing, train_shards=paths)
    changed = {key for key in streamed(data) if data.captions([key]) != clean.captions([key])}
    assert changed == set(second[1:])


def test_a_table_of_suspects_names_all_but_those_acquitted(tmp_path: Path) -> None:
    table = tmp_path / "suspects.csv"
    table.write_text(
        'key,caption,decision\nk1,"a, b\nc",poisoned\nk2,x,benign\nk3,y,suspicious\n'
        "'=k4,z,poisoned\n'quoted,,poisoned\n"
    )
    assert excluded_keys(str(table)) == {"k1", "k3", "=k4", "'quoted"}
    table.write_text("score,key\n1,k1\n2,k2\n")
    assert excluded_keys(str(table)) == {"k1", "k2"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, r"missing\.txt cannot be read: it does not exist"),
        ("missing.json", None, r"missing\.json cannot be read: it does not exist"),
        ("poison.json", b'{"a": 1}', r"poison\.json cannot be read: it lacks 'plans'"),
        ("suspects.csv", b"name,score\na,1\n", r"suspects\.csv has no column 'key'"),
        ("suspects.csv", b"key,decision\na,benign\n", r"suspects\.csv names no keys"),
        ("keys.txt", b"\n \n", r"keys\.txt names no keys"),
        ("keys.txt", b"\xff\xfe", r"keys\.txt cannot be read: it is not UTF-8 text"),
        ("keys.txt", b"somebody\nelse\n", r"none of the 2 keys that .*keys\.txt names is in these shards"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    name: str, content: bytes | None, message: str, paths: list[str], preprocessing: Preprocessing, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserMistake, match=f"data.exclude: .*{message}") as error:
        ready(preprocessing, train_shards=paths, exclude=str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_what_is_left_out_is_said(
    paths: list[str],
    preprocessing: Preprocessing,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr("untrigger.datamodules.pairs.rank_zero_info", said.append)
    list_of_keys = tmp_path / "keys.txt"
    list_of_keys.write_text("k0003\nk0020\nnobody\n")
    with caplog.at_level(logging.WARNING):
        ready(preprocessing, train_shards=paths, exclude=str(list_of_keys))
    assert said == [f"Training pairs: 25 in 3 shards (2 left out by {list_of_keys})"]
    assert f"1 of the 3 keys that {list_of_keys} names are not in these shards" in caplog.text


def test_leaving_out_nearly_all_pairs_is_a_mistake(
    paths: list[str], preprocessing: Preprocessing, tmp_path: Path
) -> None:
    list_of_keys = tmp_path / "keys.txt"
    list_of_keys.write_text("\n".join(f"k{number:04d}" for number in range(26)))
    with pytest.raises(UserMistake, match="1 training pairs do not fill one batch of 4"):
        ready(preprocessing, train_shards=paths, exclude=str(list_of_keys), batch_size=4)
