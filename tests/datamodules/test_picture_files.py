"""One picture in many files: what it shows is the same at every door."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.picture_files import MAX_PIXELS, _said_size
from untrigger.datamodules.shards.encoded import check_picture, encode_picture
from untrigger.datamodules.shards.samples import decode_picture

RAMP = np.linspace(0, 255, 32 * 32).round().astype(np.uint8).reshape(32, 32)
BLACK = Image.new("RGB", (9, 7))


def file(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def test_grey_of_16_bits_is_scaled_and_not_cut_at_white() -> None:
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    shown = decode_picture(file(wide), 32)
    np.testing.assert_array_equal(shown, np.repeat(RAMP[..., None], 3, axis=2))
    assert check_picture(file(wide)).extension == "png"
    with Image.open(io.BytesIO(encode_picture(wide).data)) as written:
        np.testing.assert_array_equal(np.asarray(written.convert("RGB")), shown)


def test_a_transparent_grey_of_16_bits_is_white() -> None:
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    shown = decode_picture(file(wide, transparency=0), 32)[..., 0]
    np.testing.assert_array_equal(shown, np.where(RAMP == 0, 255, RAMP))


@pytest.mark.parametrize(
    ("mode", "scale"), [("F", 1 / 255), ("F", 257), ("F", np.nan), ("F", -1), ("I", 257), ("I", -1)]
)
def test_numbers_without_a_known_white_are_refused(mode: str, scale: float) -> None:
    numbers = (RAMP.astype(float) * scale).astype(np.float32 if mode == "F" else np.int32)
    with pytest.raises(BadSample, match=f"picture of unknown range: mode {mode} with numbers from"):
        encode_picture(Image.fromarray(numbers))
    same = encode_picture(Image.fromarray(RAMP.astype(numbers.dtype)))
    np.testing.assert_array_equal(decode_picture(same.data, 32)[..., 0], RAMP)


def test_transparency_is_laid_on_white() -> None:
    hidden = np.zeros((8, 8, 4), dtype=np.uint8)  # black wherever it is seen through
    hidden[:4, :, 3] = 255
    hidden[4, :, 3] = 51
    expected = np.full((8, 8, 3), 255, dtype=np.uint8)
    expected[:4], expected[4] = 0, 204
    whole = Image.fromarray(hidden)
    palette = whole.convert("P")
    palette.info["transparency"] = bytes([0 if index == palette.getpixel((0, 7)) else 255 for index in range(256)])
    for data in (file(whole), file(whole, "WEBP", lossless=True, exact=True), file(whole.convert("LA"))):
        np.testing.assert_array_equal(decode_picture(data, 8), expected)
    keyed = file(Image.fromarray(expected[..., 0]), transparency=0)
    assert (decode_picture(keyed, 8) >= 204).all()


def test_what_exif_says_of_rotation_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.repeat(np.repeat(RAMP[..., None], 3, axis=2), 2, axis=1)
    turned, plain = (file(Image.fromarray(pixels), "JPEG", quality=95, **more) for more in ({"exif": exif}, {}))
    np.testing.assert_array_equal(decode_picture(turned, 16), decode_picture(plain, 16))


@pytest.mark.parametrize("entries", [1, 3])
def test_damaged_exif_data_are_nobody_s_concern(entries: int) -> None:
    # The maker's name, of 100 bytes, begins beyond the end; of three entries, two are missing.
    make = struct.pack("<HHII", 0x010F, 2, 100, 200)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, entries) + make + bytes(4)
    plain, damaged = (file(Image.fromarray(RAMP).convert("RGB"), "JPEG", **more) for more in ({}, {"exif": exif}))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(damaged))
        assert "Skipping tag 271" in str(warned[0].message)
        warned.clear()
        np.testing.assert_array_equal(decode_picture(damaged, 16), decode_picture(plain, 16))
        assert check_picture(damaged).width == 32
    assert not warned


@pytest.mark.parametrize("format", ["BMP", "GIF", "TIFF"])
def test_a_whole_picture_of_another_format_is_not_called_broken(format: str) -> None:
    with pytest.raises(BadSample, match=rf"^unsupported format \({format}\): convert it to JPEG, PNG or WebP"):
        check_picture(file(BLACK, format))


@pytest.mark.parametrize("size", [16, 24])
def test_the_first_of_several_pictures_is_the_picture(size: int) -> None:
    first, second = (Image.new("RGB", (24, 24), colour) for colour in ("red", "blue"))
    files = {
        "jpg": file(first, "MPO", save_all=True, append_images=[second]),
        "webp": file(first, "WEBP", lossless=True, save_all=True, append_images=[second]),
        "png": file(first, "PNG", save_all=True, append_images=[second]),
    }
    for extension, data in files.items():
        checked = check_picture(data)
        assert (checked.extension, checked.width, checked.height, checked.data) == (extension, 24, 24, data)
        assert np.abs(decode_picture(data, size).astype(int) - (255, 0, 0)).max() <= 2


def progressive(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there many times."""
    data = file(Image.new("RGB", (side, side), (3, 9, 200)), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * scans + data[end:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html><body>404", "WebP; it looks like a web page, as servers answer instead of a file"),
        (b"BM is how this text begins", "WebP"),
        (b"", "WebP"),
    ],
)
def test_what_is_no_picture_is_told_as_what_it_looks_like(data: bytes, said: str) -> None:
    with pytest.raises(BadSample) as reported:
        decode_picture(data, 32)
    assert reported.value.detail == f"it cannot be read as JPEG, PNG or {said}"


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    for side, decode in ((256, 256), (1000, 32)):
        with pytest.raises(BadSample, match="picture with too many scans"):
            decode_picture(progressive(side, 20_000), decode)
        with pytest.raises(BadSample, match="picture with too many scans"):
            check_picture(progressive(side, 20_000))
    assert decode_picture(progressive(256, 20), 32).shape == (32, 32, 3)


def png_of(width: int, height: int) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0"))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def webp_of(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([16, 0, 0, 0]) + sides
    return b"RIFF" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("data", [png_of(5000, 5001), png_of(30_000, 30_000), webp_of(16_383, 16_383)])
def test_a_huge_canvas_is_refused_by_its_head(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(BadSample, match="picture too large"):
        decode_picture(data, 32)


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"save_all": True, "append_images": [Image.new("L", (9, 7))]}]
)
def test_the_size_in_the_head_of_a_webp_is_read_rightly(options: dict[str, Any]) -> None:

    assert _said_size(file(Image.new("RGB", (9, 7)), "WEBP", **options)) == (9, 7)
    assert MAX_PIXELS > 9 * 7
