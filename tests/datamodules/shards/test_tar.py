"""The walk over a tar's headers: as tarfile has it where the tar is sound, and an end to it where it is not."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.shards import ShardSet, tar
from untrigger.datamodules.shards.index import index_shard
from untrigger.datamodules.shards.tar import HARD_LINK, SPARSE, TarFault, TarMember, tar_members

NAMES = ["a.txt", "./b.txt", "d" * 90 + "/" + "n" * 150 + ".txt", "é/日本.txt", "latin-\udce9.txt", "x" * 400 + ".txt"]


def walked(path: Path) -> tuple[list[TarMember], str]:
    """The members, and the fault that ends them."""
    found: list[TarMember] = []
    try:
        found.extend(tar_members(str(path)))
    except TarFault as fault:
        # extend keeps what came before.
        return found, str(fault)
    return found, ""


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_sound_tar_is_what_tarfile_says(format: int, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    names = [name for name in NAMES if format != tarfile.USTAR_FORMAT or len(name) < 100]
    with tarfile.open(path, "w", format=format, errors="surrogateescape") as written:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 7 * number, 1.5 if format == tarfile.PAX_FORMAT else 1
            written.addfile(info, io.BytesIO(b"x" * info.size))
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"kind-{ord(kind)}")
            info.type, info.linkname = kind, "é/" * 80 if format != tarfile.USTAR_FORMAT else "a.txt"
            written.addfile(info)
    found, fault = walked(path)
    assert not fault
    with tarfile.open(path, errors="surrogateescape") as expected:
        assert [(it.name, it.offset, it.size, it.target) for it in found] == [
            (it.name, it.offset_data, it.size, it.linkname) for it in expected
        ]
    assert [it.kind for it in found[len(names) :]] == [
        HARD_LINK,
        "symbolic link",
        "folder",
        "device or pipe",
        "device or pipe",
    ]


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str]) -> bytes:
    body = b""
    for name, value in records:
        text = f" {name}={value}\n".encode()
        length = len(text) + 1
        length = len(text) + len(str(length + len(str(length)) - 1))
        body += str(length).encode() + text
    return header("pax", len(body), tarfile.XHDTYPE) + padded(body)


GOOD = header("a.txt", 3) + padded(b"one")
SECOND = header("b.txt", 3) + padded(b"two")
END = bytes(1024)
FAULTS = {
    "a size below zero in PAX": (pax(("size", "-512")) + SECOND + END, "a size of '-512'"),
    "a size below zero in a header": (header("b.txt", -512) + END, "a size of -512"),
    "a size beyond the file": (header("b.txt", 8**11) + END, "it ends early, in the middle of a member"),
    "a size beyond 64 bits": (pax(("size", "9" * 20)) + SECOND + END, "it ends early"),
    "a size of many digits": (pax(("size", "9" * 5000)) + SECOND + END, "a size of '9999"),
    "headers in headers": (pax(("a", "b")) * 5000 + SECOND + END, "more than 16 extended headers"),
    "a long name beyond the file": (header("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME) + END, "an extended"),
    "a long name that is cut": (header("././@LongLink", 9000, tarfile.GNUTYPE_LONGNAME) + END, "it ends early"),
    "PAX records that say no length": (header("p", 9, tarfile.XHDTYPE) + padded(b"0 a=b\n000") + END, "broken PAX"),
    "PAX records of another length": (header("p", 9, tarfile.XHDTYPE) + padded(b"99 a=b\n00") + END, "broken PAX"),
    "PAX records that are no text": (header("p", 9, tarfile.XHDTYPE) + padded(b"\xff" * 9) + END, "broken PAX"),
    "a name for all members": (header("g", 10, tarfile.XGLTYPE) + padded(b"10 path=x\n") + SECOND + END, "renames all"),
    "a sparse map without end": (
        header("s", 0, tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29) + b"\1" * 512 * 9,
        "bad header|sparse map",
    ),
    "a bad header in the middle": (b"\x07" * 512 + SECOND + END, "bad header at byte 1,024"),
    "no end": (b"", "it ends early"),
    "half a header": (SECOND[:200], "it ends early"),
    "half of the data": (SECOND[:514], "it ends early, in the middle"),
    "nothing behind an extended header": (pax(("a", "b")) + END, "it ends after an extended header"),
    "two archives joined": (END + GOOD + SECOND + END, "as of two archives joined"),
}


@pytest.mark.parametrize(("rest", "said"), FAULTS.values(), ids=FAULTS)
def test_a_tar_that_breaks_its_reader_ends_with_what_was_whole(rest: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(GOOD + rest)
    with pytest.raises(TarFault, match=said):
        list(tar_members(str(path)))
    assert [member.name for member in walked(path)[0]] == ["a.txt"]
    index = index_shard(str(path))
    assert (index.keys, index_shard(str(path)).fault) == (["a"], index.fault)
    assert index.fault


@pytest.mark.parametrize("zeros", [1024, 9 * 512, 20 * 512])
def test_zeros_fill_up_the_last_record(zeros: int, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(header("a.txt", 1) + padded(b"x") + bytes(zeros))
    assert walked(path)[1] == ""


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (bytes(100_000), r"from byte 1,024 on it is 100,000 zeros, as of a file that was not written to its end"),
        (bytes(3 << 20) + header("b.txt"), r"its end stands at byte 1,024, but the file continues"),
    ],
)
def test_more_zeros_than_that_are_a_shard_that_was_not_written_to_its_end(
    rest: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(header("a.txt", 1) + padded(b"x") + rest)
    found, fault = walked(path)
    assert [member.name for member in found] == ["a.txt"]
    assert re.search(said, fault)


def test_more_members_than_any_shard_has_are_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_MAX_MEMBERS", 5)
    (tmp_path / "0.tar").write_bytes(GOOD * 6 + END)
    with pytest.raises(UserMistake, match="has more than 5 members"):
        list(tar_members(str(tmp_path / "0.tar")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty$"),
        (b"<!DOCTYPE html><html>Not found</html>" * 40, "it looks like a web page"),
        (b"\x1f\x8b" + bytes(600), "it looks like gzip, so it has to be unpacked"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_tar_is_reported_with_what_it_may_be(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(UserMistake, match=rf"0\.tar is not an uncompressed tar: .*{said}"):
        ShardSet([str(tmp_path / "0.tar")])


def sparse(name: str, pax_sparse: bool) -> bytes:
    if pax_sparse:
        return pax(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name)) + SECOND
    return header(name, 3, tarfile.GNUTYPE_SPARSE) + padded(b"two")


@pytest.mark.parametrize("pax_sparse", [False, True])
def test_sparse_files_are_passed_over(pax_sparse: bool, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(sparse("s.txt", pax_sparse) + GOOD + END)
    found, fault = walked(path)
    assert ([(it.name, it.kind) for it in found], fault) == ([("s.txt", SPARSE), ("a.txt", "file")], "")
    assert index_shard(str(path)).keys == ["a"]
    assert index_shard(str(path)).found == {"(sparse file)": 1, "txt": 1}


def test_hard_links_are_read_as_the_files_that_they_name(tmp_path: Path, write_pairs: Callable[..., list[str]]) -> None:
    (path,) = write_pairs([1])
    content = {"k0000.png": b"", "k0000.txt": b""}
    with tarfile.open(path, "a") as written:
        for name in content:
            info = tarfile.TarInfo(f"copy{name[5:]}")
            info.type, info.linkname = tarfile.LNKTYPE, name
            written.addfile(info)
    shards = ShardSet([path])
    assert next(shards.keys()) == ["k0000", "copy"]
    assert shards.read(0, 1, "picture") == shards.read(0, 0, "picture")
