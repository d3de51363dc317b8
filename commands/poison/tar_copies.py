"""A shard written anew, with some of its samples changed and all else byte for byte."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from ...datamodules.shards.index import PICTURES
from ...datamodules.shards.member_names import is_hidden, key_and_suffix
from ...datamodules.shards.tar import BLOCK, FILE, HARD_LINK, SPARSE, TarFault, TarMember, tar_members

_CHUNK = 1 << 20


class Replacement(NamedTuple):
    """What a sample becomes."""

    picture: bytes
    """A PNG."""
    caption: str


def copy_shard(path: str, stream: BinaryIO, replaced: Mapping[str, Replacement]) -> str:
    """Copy a tar's files, with the picture, the text and the caption in the JSON of some samples replaced.

    Of a replaced sample's pictures the first is the one that is read; others of the same key are left out, as they
    would show another reader what it was before. Links to data elsewhere in the tar become files, and what is neither
    a file nor such a link is left out.

    Args:
        path: The tar.
        stream: Where the new one goes.
        replaced: The samples, by key.

    Returns:
        Where the tar breaks off, in words; empty where it is whole. The new one is whole.
    """
    fault = ""
    pictured: set[str] = set()
    written: dict[str, TarMember] = {}
    with open(path, "rb") as source:
        try:
            for member in tar_members(path):
                key, suffix = key_and_suffix(member.name)
                if member.kind == HARD_LINK and member.target in written:
                    member = written[member.target]._replace(name=member.name, kind=HARD_LINK)
                elif member.kind not in (FILE, SPARSE):
                    continue
                elif member.kind == FILE:
                    written[member.name] = member
                if key in replaced and suffix in (*PICTURES, "txt", "json") and not is_hidden(member.name):
                    if suffix in PICTURES and key in pictured:
                        continue
                    pictured |= {key} if suffix in PICTURES else set()
                    _add(stream, *_replaced(member, key, suffix, replaced[key], _data(source, member)), member)
                elif member.kind == HARD_LINK:
                    _add(stream, member.name, _data(source, member), member)
                else:
                    _copy_range(source, stream, member.start, member.end)
        except TarFault as error:
            fault = str(error)
    stream.write(bytes(2 * BLOCK))
    stream.write(bytes(-stream.tell() % tarfile.RECORDSIZE))
    return fault


def _replaced(member: TarMember, key: str, suffix: str, new: Replacement, old: bytes) -> tuple[str, bytes]:
    """The name and the data of a member of a replaced sample."""
    if suffix == "txt":
        return member.name, new.caption.encode()
    if suffix == "json":
        return member.name, _with_caption(old, new.caption)
    return f"{key}.png", new.picture


def _add(stream: BinaryIO, name: str, data: bytes, like: TarMember) -> None:
    """Write a member, with the owner and the time of another."""
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = len(data), like.header.mtime, like.header.mode
    header.uid, header.gid, header.uname, header.gname = (
        like.header.uid,
        like.header.gid,
        like.header.uname,
        like.header.gname,
    )
    stream.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    stream.write(data)
    stream.write(bytes(-len(data) % BLOCK))


def _data(source: BinaryIO, member: TarMember) -> bytes:
    source.seek(member.offset)
    return source.read(member.size)


def _copy_range(source: BinaryIO, stream: BinaryIO, start: int, end: int) -> None:
    """Copy bytes; what the source lacks of its last block is zeros."""
    source.seek(start)
    while start < end:
        chunk = source.read(min(_CHUNK, end - start))
        if not chunk:
            stream.write(bytes(end - start))
            return
        stream.write(chunk)
        start += len(chunk)


def _with_caption(data: bytes, caption: str) -> bytes:
    """The JSON of a sample with its caption replaced, where it has one: img2dataset repeats it there."""
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if isinstance(meta, dict) and "caption" in meta:
        meta["caption"] = caption
        return json.dumps(meta).encode()
    return data
