"""Encode pictures for a shard, or check those that are encoded already."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from PIL import Image

from ..picture_files import as_rgb, check_size, opened_picture

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


class EncodedPicture(NamedTuple):
    """A picture as it stands in a shard."""

    data: bytes
    """An encoded JPEG, PNG or WebP."""
    extension: str
    """``jpg``, ``png`` or ``webp``."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""


def check_picture(data: bytes) -> EncodedPicture:
    """Decode an encoded picture to see that it is whole; its bytes are kept as they are.

    Args:
        data: What a picture file holds.

    Returns:
        The same bytes with their extension and size.

    Raises:
        BadSample: As ``opened_picture`` and ``as_rgb``.
    """
    with opened_picture(data) as picture:
        width, height = picture.size
        extension = EXTENSIONS[str(picture.format)]
        # A JPEG is read to its end at an eighth of the size too, in a fraction of the time.
        picture.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        picture.load()
        as_rgb(picture)  # whether it can be shown
    return EncodedPicture(data, extension, width, height)


def encode_picture(picture: Image.Image) -> EncodedPicture:
    """Encode a decoded picture as PNG, greyscale or RGB, without loss.

    Raises:
        BadSample: If it has more than ``MAX_PIXELS`` pixels, or as ``as_rgb``.
    """
    check_size(picture.width, picture.height)
    stream = BytesIO()
    plain = picture if picture.mode == "L" and not picture.has_transparency_data else as_rgb(picture)
    plain.save(stream, format="PNG")
    return EncodedPicture(stream.getvalue(), "png", picture.width, picture.height)
