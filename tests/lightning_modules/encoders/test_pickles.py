"""What a pickle would cost is known before it is loaded."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders.checkpoint_files import read_pickled
from untrigger.lightning_modules.encoders.pickles import PickleTooCostly, check_pickle


class Calls:
    """Becomes a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def nested(depth: int) -> Any:
    found: Any = ()
    for _ in range(depth):
        found = (found, found)
    return found


def as_key(key: Any) -> bytes:
    """A dictionary whose key Python itself could not hash in time."""
    inner = pickle.dumps(key, 2)[2:-1]  # without its head and its end
    return b"\x80\x02}" + inner + b"K\x01s."


HOSTILE = {
    "bytearray": pickle.dumps(Calls(bytearray, 12 * 2**30), 2),
    "tensor": pickle.dumps(Calls(torch.Tensor, 2**33), 2),
    "storage": pickle.dumps(Calls(torch.FloatStorage, 2**33), 2),
    "nested key": as_key(nested(60)),
    "nested part of a set": b"\x80\x02c__builtin__\nset\n](" + pickle.dumps(nested(60), 2)[2:-1] + b"e\x85R.",
    "counted": b"\x80\x02ccollections\nCounter\n](" + pickle.dumps(nested(60), 2)[2:-1] + b"e\x85R.",
    "by the way of a type": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nbytearray\nc__builtin__\nset\n"
    b"\x8a\x05\x00\x00\x00\x00\x03\x85}tR.",
    "list of lists": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    "tuples": b"\x80\x02)" + b"\x85" * 5000 + b".",
    "compressed text": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("archive", [True, False])
def test_what_costs_more_than_its_size_is_not_loaded(name: str, archive: bool, tmp_path: Path) -> None:
    with pytest.raises(PickleTooCostly):
        check_pickle(io.BytesIO(HOSTILE[name]))
    path = tmp_path / "model.pt"
    if archive:
        torch.save({"a": torch.zeros(2)}, path)
        with zipfile.ZipFile(path) as whole:
            parts = {item.filename: whole.read(item) for item in whole.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as other:
            for member, content in parts.items():
                other.writestr(member, HOSTILE[name] if member.endswith("data.pkl") else content)
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        first = len(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
        path.write_bytes(path.read_bytes()[:first] + HOSTILE[name])
    with pytest.raises(UserMistake, match="does not load as tensors alone"):
        read_pickled(path)


@pytest.mark.parametrize("archive", [True, False])
def test_what_torch_saves_is_loaded(archive: bool, tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    state = collections.OrderedDict(weight=shared, part=shared[1:, ::2], half=torch.ones(3).half(), empty=torch.ones(0))
    state._metadata = collections.OrderedDict(version=1)  # type: ignore[attr-defined]  # as nn.Module.state_dict
    whole: dict[Any, Any] = {
        "state_dict": state,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "flags": torch.tensor([True, False]),
        ("a", 1): {1: [2.5, None, True, "text", b"bytes", bytearray(b"more"), {3, 4}, 1 + 2j]},
        "numbers": [2**70, -1, torch.Size([2, 3]), collections.Counter({"a": 1}), torch.float16],
    }
    path = tmp_path / "model.pt"
    torch.save(whole, path, _use_new_zipfile_serialization=archive)
    found = read_pickled(path)
    assert torch.equal(found["state_dict"]["part"], shared[1:, ::2])
    assert found["numbers"][:3] == whole["numbers"][:3]
    assert found["a", 1] == whole["a", 1]


def test_an_archive_is_what_every_reader_takes_it_for(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(2)}, path)
    good = path.read_bytes()
    table = good.index(b"PK\x01\x02")
    for name, content in {
        "version": good[: table + 6] + struct.pack("<H", 99) + good[table + 8 :],
        "before": b"PK\x03\x04" + good,
        "behind": good + b"PK\x05\x06",
        "two": good + good,
        "no table": good[:table],
        "nothing": b"",
        "a pipe's": b"\x1f\x8b" + good,
    }.items():
        path.write_bytes(content)
        with pytest.raises(UserMistake, match="does not load as tensors alone") as mistake:
            read_pickled(path)
        assert "\n" not in str(mistake.value), name
