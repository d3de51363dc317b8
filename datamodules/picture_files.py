"""Open and check picture files: the only module that opens one.

What a picture shows, where programs differ:

- Of a file with several pictures (a camera's multi-picture JPEG, an animated WebP or PNG) it is the first.
- Transparency is laid on white, as img2dataset does; open_clip would show what stands under it, often black.
- Pixels stay as they are stored, whatever rotation EXIF asks for: neither open_clip nor img2dataset rotates.
- Grey of 16 bits is scaled to 8; Pillow by itself would make white of all that is above 255.
- Whole and floating-point numbers of 32 bits are taken for those of 8 where they can be nothing else, and refused
  elsewhere: nothing says whether 1, 255 or 65,535 is white.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from ..files.reading import looks_like
from .bad_samples import BadSample

MAX_PIXELS = 25_000_000
"""As open_clip's guard: larger pictures are scans, posters or bombs."""

_MAX_SCANNED = 20 * MAX_PIXELS
"""Pixels times scans of a JPEG: a progressive one has about ten scans, a bomb of 3 MB tens of thousands."""
_JPEG = b"\xff\xd8\xff"
_START_OF_SCAN = b"\xff\xda"
_OTHERS = ("PNG", "WEBP")
"""As Pillow calls them. It would open dozens of other formats, some of which run an interpreter."""
UNSUPPORTED = "unsupported format"
"""How the kind of fault begins of a picture that may be whole, but in a format that is not read."""
_OTHER_FORMATS = {
    "BMP": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "PNM": re.compile(rb"P[1-7]\s"),
    "HEIC": re.compile(rb".{4}ftyp(hei|hev|mif1)", re.DOTALL),
    "AVIF": re.compile(rb".{4}ftypavi", re.DOTALL),
}
"""By their names, how files begin."""
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_NO_WHITE = ("I", "F")


@contextmanager
def opened_picture(data: bytes) -> Iterator[Image.Image]:
    """Open a JPEG, PNG or WebP file, of whatever name. Pixels are decoded on demand, inside the block.

    Args:
        data: What the file holds.

    Yields:
        The picture, in whatever mode it has; ``as_rgb`` makes RGB of it.

    Raises:
        BadSample: If it is no such file, as a BMP, a GIF or a TIFF is none, has more than ``MAX_PIXELS`` pixels or far
            too many scans, or if the block fails on it in whatever way.
    """
    try:
        with _open(data) as picture:
            yield picture
    except BadSample:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # raised by Pillow when it opens
        raise BadSample("picture too large", str(error)) from None
    except UnidentifiedImageError:  # its message has no more than an address in memory
        other = next((name for name, head in _OTHER_FORMATS.items() if head.match(data)), None)
        if other is not None:
            raise BadSample(f"{UNSUPPORTED} ({other})", "convert it to JPEG, PNG or WebP") from None
        raise BadSample("broken picture", f"it cannot be read as JPEG, PNG or WebP{looks_like(data)}") from None
    except Exception as error:  # a decoder on hostile bytes may raise anything
        raise BadSample("broken picture", str(error) or type(error).__name__) from None


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture in 8-bit RGB, as the head of this file says.

    Args:
        picture: In any of Pillow's modes.

    Returns:
        The same picture if it is RGB without transparency; a new one otherwise.

    Raises:
        BadSample: If nothing says which number is white.
    """
    if picture.mode in _NO_WHITE:
        _check_range(np.asarray(picture), picture.mode)
    if picture.mode in _DEEP_GREY:
        # 65,535 is 255 times 257.
        grey = np.asarray(picture, dtype=np.uint32)
        eight = ((grey + 128) // 257).astype(np.uint8)
        eight[grey == picture.info.get("transparency", -1)] = 255  # a PNG may name one grey that is none
        return Image.fromarray(eight).convert("RGB")
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    seen = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    page = Image.new("RGB", seen.size, "white")
    page.paste(seen, mask=seen.getchannel("A"))
    return page


def _check_range(numbers: npt.NDArray[Any], mode: str) -> None:
    lowest, highest = numbers.min(), numbers.max()
    as_bytes = mode == "I" or highest > 1 or highest == 0
    if not (as_bytes and lowest >= 0 and highest <= 255):
        fault = f"mode {mode} with numbers from {lowest:g} to {highest:g}: make it one of 8 or 16 bits a channel"
        raise BadSample("picture of unknown range", fault)


def check_size(width: int, height: int) -> None:
    """Check that a picture is none too large.

    Raises:
        BadSample: If it has more than ``MAX_PIXELS`` pixels.
    """
    if width * height > MAX_PIXELS:
        raise BadSample("picture too large", f"{width} x {height} pixels")


def check_scans(data: bytes, width: int, height: int) -> None:
    """Check that the scans of a JPEG do not take minutes. Each goes over all pixels, however few bytes it has.

    Raises:
        BadSample: If there are too many for its size.
    """
    # There are no more scans than second bytes of their marker, which are counted in a tenth of the time.
    if np.count_nonzero(np.frombuffer(data, np.uint8) == _START_OF_SCAN[1]) * width * height <= _MAX_SCANNED:
        return
    # The two bytes stand for nothing else inside a scan; in a profile or a thumbnail they may, a few times.
    scans = data.count(_START_OF_SCAN)
    if scans * width * height > _MAX_SCANNED:
        raise BadSample("picture with too many scans", f"{scans} of {width} x {height} pixels")


def _open(data: bytes) -> Image.Image:
    if data.startswith(_JPEG):
        # By its own class: Pillow would take some JPEGs for its format MPO, and warn of others.
        with warnings.catch_warnings():
            # It looks for a resolution in EXIF data, which are often damaged and of which nothing is used here.
            warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
            picture: Image.Image = JpegImagePlugin.JpegImageFile(BytesIO(data))
        check_size(*picture.size)
        check_scans(data, *picture.size)
        return picture
    # Before Pillow looks, which makes room for the whole canvas of a WebP when it opens one.
    check_size(*_said_size(data))
    picture = Image.open(BytesIO(data), formats=_OTHERS)
    check_size(*picture.size)
    return picture


def _said_size(data: bytes) -> tuple[int, int]:
    """Width and height that the head of a PNG or a WebP says; 0 where it is neither."""
    if data.startswith(b"\x89PNG"):
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    number = int.from_bytes(data[21:25], "little")
    match data[12:16] if data.startswith(b"RIFF") else b"":
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            return (number & 0x3FFF) + 1, (number >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0
