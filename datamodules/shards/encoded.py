"""From a picture file's bytes, or a decoded picture, to what stands in a shard."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from PIL import Image

from ..picture_files import FORMATS, MAX_PIXELS
from .samples import BadSample

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
        BadSample: If they are not a whole JPEG, PNG or WebP of at most ``MAX_PIXELS`` pixels.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            _check_size(width, height)
            extension = EXTENSIONS[str(picture.format)]
            # A JPEG is read to its end at an eighth of the size too, in a fraction of the time.
            picture.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            picture.load()
    except BadSample:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadSample("picture too large", str(error)) from None
    except Exception as error:  # a decoder on hostile bytes may raise anything
        raise BadSample("broken picture", str(error) or type(error).__name__) from None
    return EncodedPicture(data, extension, width, height)


def encode_picture(picture: Image.Image) -> EncodedPicture:
    """Encode a decoded picture as PNG, greyscale or RGB, without loss.

    Raises:
        BadSample: If it has more than ``MAX_PIXELS`` pixels.
    """
    _check_size(picture.width, picture.height)
    stream = BytesIO()
    plain = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    plain.save(stream, format="PNG")
    return EncodedPicture(stream.getvalue(), "png", picture.width, picture.height)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadSample("picture too large", f"{width} x {height} pixels")
