"""Decode the members of a sample: picture, captions and label. None of them is trusted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from simplejpeg import decode_jpeg, decode_jpeg_header
from torch.nn import functional

from ..bad_samples import BadSample
from ..picture_files import MAX_PIXELS, as_rgb, check_scans, opened_picture

_PLAIN_JPEG = ("YCbCr", "RGB", "Gray")
"""Colour spaces that every decoder turns into the same RGB; of CMYK there are two opposite readings."""
_PARTS = (8, 4, 2)
"""By which libjpeg divides a side while it decodes: what Pillow's ``draft`` chooses from."""


def decode_picture(data: bytes, image_size: int) -> npt.NDArray[np.uint8]:
    """Decode a picture into the model's input square: ``decode_square``, then ``resized``.

    Args:
        data: A JPEG, PNG or WebP file.
        image_size: Side S of the square, in pixels.

    Returns:
        ``(S, S, 3)`` RGB.

    Raises:
        BadSample: As ``opened_picture`` and ``as_rgb``.
    """
    picture: npt.NDArray[np.uint8] = resized([decode_square(data, image_size)], image_size)[0]
    return picture


def decode_square(data: bytes, image_size: int) -> npt.NDArray[np.uint8]:
    """Decode the centre of a picture, as a square that is not yet of the model's size but is to be ``resized``.

    The crop is of whole pixels; where it cannot lie in the middle, it lies half a pixel to the left of it or above. A
    JPEG that is larger than the input is decoded at a reduced size (1/2, 1/4 or 1/8, never below the input's) first. A
    square that is much larger than the input is of its size already: many are held at a time.

    Args:
        data: A JPEG, PNG or WebP file.
        image_size: Side S of the model's input, in pixels.

    Returns:
        ``(Q, Q, 3)`` RGB, Q at most twice S.

    Raises:
        BadSample: As ``opened_picture`` and ``as_rgb``.
    """
    pixels = _decode_faultless_jpeg(data, image_size)
    if pixels is None:
        with opened_picture(data) as picture:
            if picture.format == "JPEG" and min(picture.size) > image_size:
                picture.draft("RGB", (image_size, image_size))
            top, left, side = _centre(picture.height, picture.width)
            # Cropped first, so that no second copy of a large picture is made.
            square = np.array(as_rgb(picture).crop((left, top, left + side, top + side)))
    else:
        top, left, side = _centre(*pixels.shape[:2])
        square = pixels[top : top + side, left : left + side]
        if pixels.nbytes > 2 * square.nbytes:
            square = square.copy()  # what lies beside it need not be held
    if side > 2 * image_size:
        square = resized([square], image_size)[0]
    return square


def resized(squares: Sequence[npt.NDArray[np.uint8]], side: int) -> npt.NDArray[np.uint8]:
    """Squares as a model sees them: Pillow's bicubic filter, antialiased, by torch, which takes a third of the time.

    Squares of one size are resized at once, in half the time that they take one by one; each becomes the same whatever
    is beside it. One that has the size is left as it is. Of torch's numbers three in a thousand differ from Pillow's,
    by 1 or 2.

    Args:
        squares: N times ``(Q, Q, 3)``, each with a Q of its own.
        side: Side S of the model's input, in pixels.

    Returns:
        ``(N, S, S, 3)``.
    """
    if not squares:
        return np.empty((0, side, side, 3), dtype=np.uint8)
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, square in enumerate(squares):
        rows_of[len(square)].append(row)
    if len(rows_of) == 1:
        return _of_one_size(squares, side)
    found = np.empty((len(squares), side, side, 3), dtype=np.uint8)
    for rows in rows_of.values():
        found[rows] = _of_one_size([squares[row] for row in rows], side)
    return found


def _of_one_size(squares: Sequence[npt.NDArray[np.uint8]], side: int) -> npt.NDArray[np.uint8]:
    together = np.stack(squares)
    if together.shape[1] == side:
        return together
    channels_last = torch.from_numpy(together).permute(0, 3, 1, 2)
    found = functional.interpolate(channels_last, (side, side), mode="bicubic", antialias=True)
    return found.permute(0, 2, 3, 1).numpy()


def _decode_faultless_jpeg(data: bytes, image_size: int) -> npt.NDArray[np.uint8] | None:
    """A faultless JPEG at the size at which Pillow would decode it, ``(H, W, 3)``, in less time; the pixels are equal.

    Anything else is None: whatever is too large, and whatever libjpeg as much as warns of. The verdict on a file that
    may be broken is Pillow's.
    """
    try:
        height, width, colours, _ = decode_jpeg_header(data)
        if height * width > MAX_PIXELS or colours not in _PLAIN_JPEG:
            return None
        check_scans(data, width, height)
        part = next((part for part in _PARTS if min(height, width) >= part * image_size), 1)
        least = {"min_height": -(-height // part), "min_width": -(-width // part)} if part > 1 else {}
        pixels: npt.NDArray[np.uint8] = decode_jpeg(data, min_factor=part, **least)
        return pixels
    except BadSample:
        raise
    except Exception:  # a decoder on hostile bytes may raise anything
        return None


def _centre(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the largest square about the centre, in whole pixels."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


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


OTHER_CLASSES = "label of other classes"


def decode_label(data: bytes, classes: int) -> int:
    """Decode a class index.

    Raises:
        BadSample: If it is no integer in [0, classes).
    """
    text = data.decode("utf-8", "replace").strip()
    if not (text.isascii() and text.isdigit()) or int(text) >= classes:
        raise BadSample("bad label", f"{text[:20]!r} is not a class index below {classes}")
    return int(text)


def decode_json_label(data: bytes, field: str, classnames: Sequence[str]) -> int:
    """Take a class index out of a JSON object. Where its ``FIELD_name`` says the class too, it has to be that class.

    Raises:
        BadSample: If it is no JSON object, its ``field`` is no index of a class, or that class has another name there.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets in brackets, a thousand deep
        raise BadSample("broken JSON", str(error)) from None
    if not isinstance(content, dict) or field not in content:
        there = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else ""
        raise BadSample("no label", f"the JSON has no field {field!r}" + (f"; it has {there:.120}" if there else ""))
    label, name = content[field], content.get(f"{field}_name")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(classnames):
        # ascii() of a huge integer would raise.
        said = f" but {label[:40]!a}" if isinstance(label, str) else ""
        raise BadSample("bad label", f"the JSON's {field!r} is not a class index below {len(classnames)}{said}")
    if isinstance(name, str) and name != classnames[label]:
        raise BadSample(OTHER_CLASSES, f"class {label} as {name[:40]!r}, which is {classnames[label][:40]!r}")
    return label
