"""A tar's members, read from its headers: the one reader of tars, for whatever is read of a shard.

``tarfile`` parses the single header; the walk over the file is done here, as a shard may be made to break its reader.
A size below zero sends ``tarfile`` round in a circle (CVE-2025-8194), headers in headers exhaust its stack, and a bad
header in the middle is the end of the archive to it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from ...contracts import UserMistake
from ...files.reading import check_ends, looks_like, reading, shown

BLOCK = tarfile.BLOCKSIZE
FILE, HARD_LINK, SYMBOLIC_LINK, FOLDER, SPARSE, OTHER = (
    "file",
    "hard link",
    "symbolic link",
    "folder",
    "sparse file",
    "device or pipe",
)

_MAX_MEMBERS = 1_000_000
_MAX_HEADER_BYTES = 1 << 20
"""Bytes of one extended header, a name or PAX records. GNU tar and img2dataset write some hundred."""
_MAX_EXTENSIONS = 16
"""Extended headers before one member."""
_LOOKED_AT = 1 << 20
"""Bytes after the end of an archive that are read at once, to see whether there is more."""
_PADDING = 20 * 512 + 2 * 512
"""Zeros at the end, at most: two blocks, and what fills up a record of tar's usual twenty blocks."""
_KINDS = {
    tarfile.LNKTYPE: HARD_LINK,
    tarfile.SYMTYPE: SYMBOLIC_LINK,
    tarfile.DIRTYPE: FOLDER,
    tarfile.CHRTYPE: OTHER,
    tarfile.BLKTYPE: OTHER,
    tarfile.FIFOTYPE: OTHER,
}
"""Kinds that have no data, whatever size they say."""


class TarFault(Exception):
    """Where a tar breaks off. What came before it is whole.

    Args:
        why: What is wrong, in words that can be printed.
        where: Byte at which it is.
    """

    def __init__(self, why: str, where: int) -> None:
        super().__init__(why)
        self.where = where


class TarMember(NamedTuple):
    """A member of a tar."""

    name: str
    """Bytes that are not UTF-8 stand as surrogates (``surrogateescape``), so that no two names become one."""
    kind: str
    """``FILE``, ``HARD_LINK``, ``SYMBOLIC_LINK``, ``FOLDER``, ``SPARSE`` or ``OTHER``."""
    target: str
    """What a link leads to."""
    start: int
    """First byte of its headers."""
    offset: int
    """First byte of its data."""
    size: int
    """Bytes of its data."""
    header: tarfile.TarInfo
    """Its header, without what stands in extended ones."""

    @property
    def end(self) -> int:
        """The byte after its last block."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


class _Extended:
    """What the extended headers before a member say."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.target: bytes | None = None
        self.size: int | None = None
        self.sparse = False


def tar_members(path: str, name: str | None = None) -> Iterator[TarMember]:
    """Iterate over the members of an uncompressed tar.

    Args:
        path: A regular file.
        name: What it is called in messages; its path unless given.

    Yields:
        The members whose headers and data are all there, in their order.

    Raises:
        TarFault: Last of all, if the file breaks off, has a bad header, or continues after its end.
        UserMistake: If the file cannot be read, is no uncompressed tar, or has more members than any shard should.
    """
    name = shown(path) if name is None else name
    check_ends("shard", path)
    with reading("shard", name, passing=(TarFault,)), open(path, "rb", buffering=0) as stream:
        file, size = stream.fileno(), os.fstat(stream.fileno()).st_size
        position = count = 0
        while True:
            try:
                member = _member(file, position, size)
            except TarFault as fault:
                if not fault.where:
                    kind = looks_like(os.pread(file, BLOCK, 0))
                    raise UserMistake(f"shard {name} is not an uncompressed tar: {fault}{kind}") from None
                raise
            if member is None:
                _check_end(file, position)
                return
            count += 1
            if count > _MAX_MEMBERS:
                raise UserMistake(f"shard {name} has more than {_MAX_MEMBERS:,} members: cut it in several")
            yield member
            position = member.end


def _member(file: int, start: int, file_size: int) -> TarMember | None:
    """The member whose headers start there; None at the end of the archive."""
    extended, position = _Extended(), start
    for _ in range(_MAX_EXTENSIONS):
        header = _header(file, position)
        if header is None:
            if position != start:
                raise TarFault("it ends after an extended header", position)
            return None
        position += BLOCK
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
            content = _extension(file, header.size, position)
            _take_records(extended, content, position, header.type == tarfile.XGLTYPE)
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            extended.name = _extension(file, header.size, position).partition(b"\0")[0]
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            extended.target = _extension(file, header.size, position).partition(b"\0")[0]
        else:
            return _described(file, header, extended, start, position, file_size)
        position += -(-header.size // BLOCK) * BLOCK
    raise TarFault(f"more than {_MAX_EXTENSIONS} extended headers before one member", start)


def _header(file: int, position: int) -> tarfile.TarInfo | None:
    """One header, as ``tarfile`` parses it; None where the archive ends."""
    block = os.pread(file, BLOCK, position)
    if not block.strip(b"\0") and len(block) == BLOCK:
        return None
    if len(block) < BLOCK:
        # Without its blocks of zeros nothing says whether more should follow.
        raise TarFault("it is empty" if not block and not position else "it ends early", position)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except Exception as error:  # a parser on hostile bytes may raise anything
        raise TarFault(f"bad header at byte {position:,}" if position else str(error), position) from None


def _extension(file: int, size: int, position: int) -> bytes:
    if not 0 <= size <= _MAX_HEADER_BYTES:
        raise TarFault(f"an extended header of {size:,} bytes at byte {position - BLOCK:,}", position)
    content = os.pread(file, size, position)
    if len(content) < size:
        raise TarFault("it ends early", position)
    return content


def _take_records(extended: _Extended, content: bytes, position: int, for_all: bool) -> None:
    """Read PAX records, ``LENGTH NAME=VALUE`` and a line feed each."""
    start = 0
    while start < len(content) and content[start]:
        space = content.find(b" ", start, start + 20)
        digits = content[start:space] if space > 0 else b""
        end = start + int(digits) if digits.isdigit() else 0
        if not space < end <= len(content) or content[end - 1 : end] != b"\n":
            raise TarFault(f"broken PAX records at byte {position:,}", position)
        name, _, value = content[space + 1 : end - 1].partition(b"=")
        start = end
        if name == b"path" or name == b"GNU.sparse.name":
            extended.name = value.rstrip(b"/") if name == b"path" else value
        elif name == b"linkpath":
            extended.target = value
        elif name == b"size":
            if not value.isdigit() or len(value) > 20:
                raise TarFault(f"a size of {ascii(value.decode('latin-1'))[:30]} at byte {position:,}", position)
            extended.size = int(value)
        extended.sparse |= name.startswith(b"GNU.sparse.")
        if for_all and name in (b"path", b"linkpath", b"size"):
            raise TarFault(f"a header that renames all members at byte {position:,}", position)


def _described(
    file: int, header: tarfile.TarInfo, extended: _Extended, start: int, position: int, file_size: int
) -> TarMember:
    kind = _KINDS.get(header.type, FILE if header.type in tarfile.REGULAR_TYPES else OTHER)
    size = header.size if extended.size is None else extended.size
    if header.type == tarfile.GNUTYPE_SPARSE or extended.sparse:
        kind = SPARSE
        position = _after_sparse_map(file, header, position)
    elif header.type in _KINDS:
        size = 0
    if size < 0:
        raise TarFault(f"a size of {size} at byte {position - BLOCK:,}", position)
    if position + size > file_size:
        raise TarFault("it ends early, in the middle of a member", position)
    name = header.name if extended.name is None else extended.name.decode("utf-8", "surrogateescape")
    target = header.linkname if extended.target is None else extended.target.decode("utf-8", "surrogateescape")
    return TarMember(name, kind, target, start, position, size, header)


def _after_sparse_map(file: int, header: tarfile.TarInfo, position: int) -> int:
    """The byte after the blocks that continue an old GNU sparse header."""
    if header.type != tarfile.GNUTYPE_SPARSE:
        return position
    continued = os.pread(file, 1, position - BLOCK + 482)
    first = position
    while continued.strip(b"\0"):
        continued = os.pread(file, 1, position + 504)
        position += BLOCK
        if not continued or position - first > _MAX_HEADER_BYTES:
            raise TarFault(f"a sparse map without end at byte {first:,}", first)
    return position


def _check_end(file: int, position: int) -> None:
    """Check that nothing but a few zeros follows the end of an archive."""
    after = position
    while chunk := os.pread(file, _LOOKED_AT, after):
        if chunk.strip(b"\0"):
            raise TarFault(
                f"its end stands at byte {position:,}, but the file continues, as of two archives joined", position
            )
        after += len(chunk)
    if after - position > _PADDING:
        raise TarFault(
            f"from byte {position:,} on it is {after - position:,} zeros, as of a file that was not written to its end",
            position,
        )
