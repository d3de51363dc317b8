"""Keys in little more than their letters."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from untrigger.key_list import KeyList

KEYS = ["000000000", "", "a/b c", "Grün", "\udcff", "\ud83d", "\ude00", "🙂", "x\0y\n"]


def test_it_is_read_as_a_list_is() -> None:
    keys = KeyList(KEYS[:2])
    keys.extend(KEYS[2:5])
    keys.extend([])
    keys.extend(iter(KEYS[5:]))
    assert list(keys) == KEYS
    assert [keys[index] for index in range(len(keys))] == KEYS
    assert [keys[-1], keys[-len(KEYS)], keys[np.int64(3)]] == [KEYS[-1], KEYS[0], KEYS[3]]
    assert keys[2:8:3] == KEYS[2:8:3]
    assert "Grün" in keys
    assert "ü" not in keys
    for beyond in (len(KEYS), -len(KEYS) - 1):
        with pytest.raises(IndexError, match=f"key {beyond} of 9"):
            keys[beyond]
    assert not KeyList()


def test_many_are_read_in_stretches() -> None:
    many = [f"{number:x}" for number in range(10_000)]
    assert list(KeyList(many)) == many


def test_equal_are_those_with_the_same_keys() -> None:
    assert KeyList(["ab", "c"]) == KeyList(["ab", "c"]) == ["ab", "c"]
    assert KeyList(["ab", "c"]) != KeyList(["a", "bc"])
    assert KeyList(["ab", "c"]) != ["ab"]
    assert KeyList(["a"]) != ("a",)


def test_a_checkpoint_and_another_process_have_the_same(tmp_path: Path) -> None:
    keys = KeyList(KEYS)
    torch.save(keys.state_dict(), tmp_path / "keys.pt")
    again = KeyList.of(torch.load(tmp_path / "keys.pt", weights_only=True))
    assert again == keys == KeyList.of(KEYS) == pickle.loads(pickle.dumps(keys))
    again.extend(["more"])
    keys.extend(["more"])
    assert again == keys


@pytest.mark.parametrize("ends", [[1, 3], [2, 1], [3, 2], [-1, 2], []])
def test_ends_that_divide_nothing_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="do not divide"):
        KeyList.of({"letters": np.frombuffer(b"ab", np.uint8), "ends": np.array(ends, np.int64)})


@pytest.mark.parametrize(("letters", "ends"), [("ü".encode(), [1, 2]), (b"\xff\xff", [1, 2])])
def test_what_is_no_text_is_refused_at_once(letters: bytes, ends: list[int]) -> None:
    with pytest.raises(ValueError, match=r"divide a letter|can't decode"):
        KeyList.of({"letters": np.frombuffer(letters, np.uint8), "ends": np.array(ends, np.int64)})


def test_a_key_takes_its_letters_and_eight_bytes() -> None:
    tracemalloc.start()
    try:
        keys = KeyList()
        for start in range(0, 50_000, 100):
            keys.extend(f"{number:09d}" for number in range(start, start + 100))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(keys) < 1.3 * (9 + 8)
