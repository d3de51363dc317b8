from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, PoisonPlan
from untrigger.datamodules.poisoning import Poison, write_manifest
from untrigger.run_folder.keys import read_keys


def test_a_manifest_names_the_keys_of_all_its_plans(tmp_path: Path) -> None:
    plans = [PoisonPlan(BadNet(), "dog", count=2), PoisonPlan(BadNet(seed=1), "cat", count=1)]
    write_manifest(Poison(plans, [["k2", "k1"], ["k7"]]), tmp_path / "poison.json")
    assert read_keys(str(tmp_path / "poison.json"), "model.given", lambda _: False) == {"k1", "k2", "k7"}


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{}", '{"plans": [3]}', '{"plans": [{"keys": [7]}]}', "{", "[" * 100_000]
)
def test_json_of_another_kind_is_refused_in_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(UserMistake, match=r"^model\.given: .* cannot be read: .*$"):
        read_keys(str(tmp_path / "other.json"), "model.given", lambda _: True)


LISTS = {
    "keys.txt": b"a\r\n\r\n-b\nd,e\n",
    "marked.txt": b"\xef\xbb\xbfa\n-b\nd,e\n",
    "keys.csv": b'key\na\n\'-b\n"d,e"\n',
    "marked.CSV": b'\xef\xbb\xbfkey,caption\r\na,x\r\n\'-b,one, two\r\n"d,e",y\r\n',
    "table without suffix": b'\xef\xbb\xbf"caption","key"\n"",a\n"",-b\n"","d,e"\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_the_same_keys_in_every_kind_of_list(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LISTS[name])
    assert read_keys(str(tmp_path / name), "data.exclude", lambda _: True) == {"a", "-b", "d,e"}


def test_keys_that_are_not_utf8_are_the_ones_of_the_shards(tmp_path: Path) -> None:
    write_manifest(Poison([PoisonPlan(BadNet(), "dog", count=1)], [["\udce9"]]), tmp_path / "poison.json")
    (tmp_path / "keys.txt").write_bytes(b"\xe9\n")
    (tmp_path / "keys.csv").write_bytes(b"key,caption\n\xe9,\xff\n")
    for path in tmp_path.iterdir():
        assert read_keys(str(path), "data.exclude", lambda _: True) == {"\udce9"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("keys.csv", b"id;key\n1;a\n", r"has no column 'key': its columns are \['id;key'\]"),
        ("keys.csv", b"caption,key\na, b,k\n", "line 2: more cells than columns"),
        ("keys.csv", b"key,decision\na,b,poisoned\n", "line 2: more cells than columns"),
        ("keys.csv", b"key,key\na,b\n", "has two columns 'key'"),
        ("keys.txt", b"\xff\xfea\0\n\0", "it looks like UTF-16 text"),
        ("keys.csv", b"PK\x03\x04", "is no table; it looks like a zip archive, as torch.save and Excel write"),
        ("keys.txt", b" \n", "names no keys"),
        ("keys.parquet", b"PAR1\x15\x04\0", "is no text; it looks like Parquet"),
    ],
)
def test_a_list_that_is_not_what_it_seems_is_reported(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserMistake, match=rf"^data\.exclude: .*{said}"):
        read_keys(str(tmp_path / name), "data.exclude", lambda _: True)
