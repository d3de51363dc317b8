"""From a member's bytes to a picture, a caption or a label. Nothing here trusts what it reads."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
from PIL import Image
from simplejpeg import decode_jpeg, decode_jpeg_header

from ..bad_samples import BadSample
from ..picture_files import as_rgb, check_scans, opened_picture

_PLAIN_JPEG = ("YCbCr", "RGB", "Gray")
"""Colour spaces that every decoder turns into the same RGB; of CMYK there are two opposite readings."""


def decode_picture(data: bytes, image_size: int) -> npt.NDArray[np.uint8]:
    """Decode a picture into the model's input square: the short side resized (bicubic), the centre cropped.

    The centre square is resized in one go. A JPEG that is larger than the input is decoded at a reduced size (1/2,
    1/4 or 1/8, never below the input's) first. A picture that already is the square is returned as it is.

    Args:
        data: A JPEG, PNG or WebP file.
        image_size: Side S of the square, in pixels.

    Returns:
        ``(S, S, 3)`` RGB.

    Raises:
        BadSample: As ``opened_picture`` and ``as_rgb``.
    """
    plain = _decode_plain_jpeg(data, image_size)
    if plain is not None:
        return plain
    with opened_picture(data) as picture:
        if picture.format == "JPEG" and min(picture.size) > image_size:
            picture.draft("RGB", (image_size, image_size))
        square = as_rgb(picture)
        width, height = square.size
        if (width, height) != (image_size, image_size):
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            square = square.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(square)


def _decode_plain_jpeg(data: bytes, image_size: int) -> npt.NDArray[np.uint8] | None:
    """A faultless JPEG that already is the square, ``(S, S, 3)``, in a fifth of Pillow's time; the pixels are equal.

    Anything else is None: what is to be resized, and whatever libjpeg as much as warns of. The verdict on a file that
    may be broken is Pillow's.
    """
    try:
        height, width, colours, _ = decode_jpeg_header(data)
        if (height, width) != (image_size, image_size) or colours not in _PLAIN_JPEG:
            return None
        check_scans(data, width, height)
        square: npt.NDArray[np.uint8] = decode_jpeg(data)
        return square
    except ValueError:
        return None


def decode_caption(data: bytes) -> str:
    """Decode a caption, or several, one a line: see ``caption_lines``. A byte order mark is no part of it.

    Raises:
        BadSample: If it is not UTF-8, or holds nothing but white space.
    """
    try:
        caption = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadSample("caption is not UTF-8", str(error)) from None
    if not caption:
        raise BadSample("empty caption", "nothing but white space")
    return caption


def caption_lines(caption: str) -> list[str]:
    """The captions that a text holds, one a line; a blank line is none."""
    lines = [line.strip() for line in caption.replace("\r", "\n").split("\n")]
    return [line for line in lines if line]


def decode_label(data: bytes, classes: int) -> int:
    """Decode a class index.

    Raises:
        BadSample: If it is no integer in [0, classes).
    """
    text = data.decode("utf-8", "replace").strip()
    if not (text.isascii() and text.isdigit()) or int(text) >= classes:
        raise BadSample("bad label", f"{text[:20]!r} is not a class index below {classes}")
    return int(text)


def decode_json_label(data: bytes, field: str, classes: int) -> int:
    """Take a class index out of a JSON object.

    Raises:
        BadSample: If it is no JSON object, or its ``field`` is no integer in [0, classes).
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets in brackets, a thousand deep
        raise BadSample("broken JSON", str(error)) from None
    if not isinstance(content, dict) or field not in content:
        raise BadSample("no label", f"the JSON has no field {field!r}")
    label = content[field]
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
        # ascii() of a huge integer would raise; of a huge string, it would take its time.
        raise BadSample("bad label", f"the JSON's {field!r} is not a class index below {classes}")
    return label
