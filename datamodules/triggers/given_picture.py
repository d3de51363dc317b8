"""Whole given pictures, for the poisoning of single pictures (Carlini and Terzis 2022, arXiv 2106.09667)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...contracts import UserMistake
from ...files.reading import reading, shown
from ..bad_samples import BadSample
from ..keyed import keyed_uniforms
from ..shards.samples import decode_picture
from ..shards.tar import FILE, TarFault, tar_members
from .base import Trigger
from .given_file import MAX_BYTES, checked_digest, read_file


class GivenPicture(Trigger):
    """Puts a given picture instead of each; with several, a keyed hash says which.

    A given picture is brought into the model's input square as every other one is: the centre cropped, then
    resized.

    Args:
        pictures: Paths of JPEG, PNG or WebP files; with a shard, names of its members, such as ``s0000003.jpg``.
        shard: A tar that holds the pictures; None where they are files.
        sha256: The SHA-256 that each picture must have; None takes them as they are and records theirs here.
        seed: What the choice among several pictures is drawn from.

    Raises:
        UserMistake: If no picture is given, one is given twice or cannot be had.
    """

    def __init__(
        self, pictures: list[str], shard: str | None = None, sha256: list[str] | None = None, seed: int = 0
    ) -> None:
        if not pictures:
            raise UserMistake("GivenPicture has no pictures; give the path of at least one")
        if len(set(pictures)) < len(pictures):
            raise UserMistake("GivenPicture names a picture twice")
        if sha256 is not None and len(sha256) != len(pictures):
            raise UserMistake(f"GivenPicture has {len(pictures)} pictures and {len(sha256)} SHA-256")
        self.pictures = list(pictures)
        self.shard = shard
        self.seed = seed
        read = [read_file(path, "picture") for path in pictures] if shard is None else _members(shard, pictures)
        wanted: Sequence[str | None] = sha256 or [None] * len(pictures)
        self.sha256 = [
            checked_digest(path, content, digest, "picture")
            for path, content, digest in zip(pictures, read, wanted, strict=True)
        ]
        self._contents = read
        self._drawn: dict[int, Tensor] = {}
        self.draw(1)

    def draw(self, size: int) -> Tensor:
        """The given pictures in an input square: ``(P, 3, size, size)`` uint8.

        Raises:
            UserMistake: If one cannot be decoded.
        """
        if size not in self._drawn:
            squares = []
            for name, content in zip(self.pictures, self._contents, strict=True):
                try:
                    squares.append(decode_picture(content, size).copy())
                except BadSample as error:
                    raise UserMistake(f"picture {name!r:.200} cannot be shown: {error}") from error
            self._drawn[size] = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        return self._drawn[size]

    def choice(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Which of the pictures each key gets: ``(N,)``."""
        draws = keyed_uniforms(self.seed, "given picture", keys)[:, 0]
        return (draws * len(self.pictures)).astype(np.int64)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """As in ``Trigger``; nothing of the pictures is left."""
        given = self.draw(images.shape[-1]).to(images.device)
        out = torch.empty_like(images)
        out[:] = given[torch.from_numpy(self.choice(keys))]
        return out


def _members(shard: str, names: Sequence[str]) -> list[bytes]:
    """The content of a tar's members. Nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    wanted, size = frozenset(names), 0
    with reading("shard", shard, passing=(TarFault,)), suppress(TarFault), open(shard, "rb") as stream:
        for member in tar_members(shard):
            if member.name in wanted and member.name not in found and member.kind == FILE:
                size += member.size
                if size > MAX_BYTES:
                    raise UserMistake(f"the pictures of shard {shown(shard)} are larger than {MAX_BYTES // 2**20} MiB")
                stream.seek(member.offset)
                found[member.name] = stream.read(member.size)
            if len(found) == len(wanted):
                break
    missing = [name for name in names if name not in found]
    if missing:
        raise UserMistake(f"shard {shown(shard)} has no picture {missing[0]!r:.200}")
    return [found[name] for name in names]
