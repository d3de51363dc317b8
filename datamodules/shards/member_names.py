"""Parse the names of a shard's members, and limit the size of each kind of member."""

from __future__ import annotations

from collections.abc import Container

MAX_BYTES = {"picture": 64 << 20, "txt": 1 << 16, "json": 1 << 20, "cls": 64}
"""That a member may have, as it is read and so as it is written."""
_MAX_SUFFIXES = 8
_MAX_SUFFIX_LENGTH = 24


def key_and_suffix(name: str) -> tuple[str, str]:
    """The key of the sample that a member belongs to, and which part of it the member is.

    The key is the path without its last suffix, and nothing of it is lost: two names with different bytes have
    different keys. ``my.a.jpg`` and ``my.b.jpg`` are of two samples.

    Args:
        name: As ``TarMember`` has it.

    Returns:
        The key, and the last suffix in lower case.
    """
    key, _, suffix = name.rpartition(".")
    return key, suffix.lower()


_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
"""What macOS, a NAS and file systems add: double files, thumbnails, remains."""


def is_hidden(name: str) -> bool:
    """Whether a member or one of its folders is hidden: ``._photo.jpg`` and ``__MACOSX``, as macOS adds them, ``.git``.

    Readers of shards pass such members over, webdataset's too: its keys have no dot in front.
    """
    if "/." not in name and name[:1] != "." and not any(folder in name for folder in _SYSTEM_FOLDERS):
        return False
    return any(is_hidden_part(part) for part in name.split("/"))


def is_hidden_part(part: str) -> bool:
    """Whether one part of a path is hidden, or a folder of the system's."""
    return part in _SYSTEM_FOLDERS or (part[:1] == "." and part not in (".", ".."))


def full_suffix(name: str) -> str:
    """All suffixes of a member, for messages: ``image.jpg`` of ``a/x.image.jpg``."""
    return name.rpartition("/")[2].partition(".")[2].lower()[:_MAX_SUFFIX_LENGTH]


def belongs_to_another(key: str, keys: Container[str]) -> bool:
    """Whether a key is another one with a suffix, as of ``x.mask.png`` beside ``x.jpg``.

    Args:
        key: The key.
        keys: All keys, to look up.
    """
    folder, slash, base = key.rpartition("/")
    for _ in range(_MAX_SUFFIXES):
        base = base.rpartition(".")[0]
        if not base:
            return False
        if f"{folder}{slash}{base}" in keys:
            return True
    return False
