"""What belongs to which sample, and what to none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import coloured_pair

from untrigger.contracts import UserMistake
from untrigger.datamodules.shards import ShardSet
from untrigger.datamodules.shards.index import index_shard
from untrigger.datamodules.shards.member_names import is_hidden, key_and_suffix

Write = Callable[..., str]


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("a.jpg", False),
        ("./a.jpg", False),
        ("../a.jpg", False),
        ("b/a.b.jpg", False),
        ("._a.jpg", True),
        ("b/._a.jpg", True),
        (".thumbnails/a.jpg", True),
        ("__MACOSX/b/a.jpg", True),
        ("a__MACOSX.jpg", False),
    ],
)
def test_hidden_members(name: str, hidden: bool) -> None:
    assert is_hidden(name) is hidden


def test_the_key_is_all_but_the_last_suffix() -> None:
    assert key_and_suffix("d/my.a.JPG") == ("d/my.a", "jpg")
    assert key_and_suffix("\udce9.txt") == ("\udce9", "txt")


def test_names_that_are_not_utf8_stay_different(tmp_path: Path, write_shard: Write) -> None:
    keys = ["\udce9", "\udce8", "\udcc3", "\udca9x", "é"]
    path = write_shard(tmp_path / "0.tar", [(key, coloured_pair(number)) for number, key in enumerate(keys)])
    for _ in range(2):  # scanned, and read from the cache
        shards = ShardSet([path])
        assert next(shards.keys()) == keys
        assert shards.locate(["\udce8"]) == {"\udce8": (0, 1)}


def test_what_lies_beside_a_pair_is_no_sample(tmp_path: Path, write_shard: Write) -> None:
    pair = coloured_pair(1)
    samples = [
        ("a.mask", {"png": pair["png"]}),
        ("a", pair),
        ("._a", pair),
        ("d/b.edge.1", {"jpg": b""}),
        ("d/b", pair),
    ]
    shards = ShardSet([write_shard(tmp_path / "0.tar", samples)])
    assert (next(shards.keys()), shards.incomplete) == (["a", "d/b"], 0)
    assert shards.found == {"mask.png": 1, "png": 2, "txt": 2, "(hidden)": 2, "edge.1.jpg": 1}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (
            {"image.png": b"", "caption.txt": b"x"},
            r"found: 2 image\.png, 2 caption\.txt, such as 00000\.image\.png and 00000\.caption\.txt; "
            r"a sample is KEY\.jpg, .*KEY\.txt",
        ),
        ({"png": b"", "json": b"{}"}, r"found: 2 png, 2 json, such as 00000\.png; "),
        ({"txt": b"", "json": b"{}"}, r"found: 2 txt, 2 json, such as 00000\.txt; "),
        ({"\x1b[31m": b""}, r"found: 2  \[31m; "),
        ({}, "found: nothing; "),
    ],
)
def test_a_shard_without_a_sample_is_reported_with_what_it_holds(
    members: dict[str, bytes], said: str, tmp_path: Path, write_shard: Write
) -> None:
    shards = ShardSet([write_shard(tmp_path / "0.tar", [("00000", members), ("00001", members)])])
    with pytest.raises(UserMistake, match=rf"0\.tar has no sample that can be used: {said}"):
        shards.check_not_empty()


def test_pictures_and_texts_in_two_folders_are_reported_by_their_names(tmp_path: Path, write_shard: Write) -> None:
    pictures = [(f"images/{number:05}", {("png", "jpg")[number]: b""}) for number in range(2)]
    texts = [(f"texts/{number:05}", {"txt": b"x"}) for number in range(2)]
    one_suffix = ShardSet([write_shard(tmp_path / "0.tar", [*pictures[:1], *texts])])
    with pytest.raises(UserMistake, match=r"1 png, such as images/00000\.png and texts/00000\.txt; a sample is KEY"):
        one_suffix.check_not_empty()
    two_suffixes = ShardSet([write_shard(tmp_path / "1.tar", [*pictures, *texts])])
    with pytest.raises(UserMistake, match=r", such as images/00000\.\* and texts/00000\.txt; a sample is KEY"):
        two_suffixes.check_not_empty()


def test_a_second_member_of_one_name_is_reported(
    tmp_path: Path, write_shard: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_shard(tmp_path / "0.tar", [("a", coloured_pair(1)), ("a", coloured_pair(2))])
    shards = ShardSet([path])
    assert shards.read(0, 0, "txt") == b"picture number 1"
    assert "2 members have the name of an earlier one in their shard" in caplog.text
    assert index_shard(path).found["(second of its name)"] == 2


def test_of_two_pictures_of_one_key_none_is_taken(
    tmp_path: Path, write_shard: Write, caplog: pytest.LogCaptureFixture
) -> None:
    def pair(number: int, *suffixes: str) -> dict[str, bytes]:
        whole = coloured_pair(number)
        return {**dict.fromkeys(suffixes, whole["png"]), "txt": whole["txt"]}

    samples = [("a", pair(1, "png", "jpg")), ("b", pair(2, "jpg", "png", "webp")), ("c", pair(3, "png"))]
    path = write_shard(tmp_path / "0.tar", samples)
    shards = ShardSet([path])
    assert (list(shards.keys()), shards.incomplete) == ([["c"]], 2)
    assert index_shard(path).found["(second picture of its key)"] == 3
    assert "have the name of an earlier one" not in caplog.text
    two = ShardSet([write_shard(tmp_path / "1.tar", samples[:1])])
    with pytest.raises(UserMistake, match=r"1 \(second picture of its key\), 1 txt, such as a\.txt; a sample is KEY"):
        two.check_not_empty()


def test_of_pictures_alone_what_lies_beside_another_is_none(tmp_path: Path, write_shard: Write) -> None:
    png, text = coloured_pair(1)["png"], {"txt": b"x"}
    path = write_shard(tmp_path / "0.tar", [("a", {"png": png, "mask.png": png}), ("b", coloured_pair(2)), ("c", text)])
    assert list(ShardSet([path], "picture").keys()) == [["a", "b"]]
    with pytest.raises(UserMistake, match=r"a sample is KEY\.jpg, \.png or \.webp$"):
        ShardSet([write_shard(tmp_path / "1.tar", [("c", text)])], "picture").check_not_empty()


def test_a_key_in_two_shards_is_told_to_what_looks_for_poison(tmp_path: Path, write_shard: Write) -> None:
    paths = [
        write_shard(tmp_path / f"{shard}.tar", [("a", coloured_pair(1)), (key, coloured_pair(2))])
        for shard, key in enumerate("bc")
    ]
    with pytest.raises(UserMistake, match=r"key 'a' stands for a sample of shard .*0\.tar and for one of .*1\.tar"):
        ShardSet(paths).check_unique()
    ShardSet(paths[:1]).check_unique()
    assert len(ShardSet(paths)) == 4
