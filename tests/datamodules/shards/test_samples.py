"""Pictures, captions and labels as they are in a shard, decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from simplejpeg import decode_jpeg_header

from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.shards import samples
from untrigger.datamodules.shards.samples import decode_caption, decode_label, decode_picture, decode_square, resized


def big_png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(10_000, 10_000), (30_000, 30_000)])
def test_a_hundred_megapixel_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(BadSample, match="picture too large"):
        decode_picture(big_png_header(*size), 32)


def test_other_formats_and_broken_files_are_bad_samples() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    for data in (eps, b"", b"\xff\xd8\xff", encoded(np.zeros((32, 32, 3), np.uint8))[:60]):
        with pytest.raises(BadSample, match="broken picture"):
            decode_picture(data, 32)
    with pytest.raises(BadSample, match="unsupported format"):
        decode_picture(gif.getvalue(), 32)


def test_captions_and_labels_are_checked() -> None:
    assert decode_caption("  ein Bär \n".encode()) == "ein Bär"
    with pytest.raises(BadSample, match="not UTF-8"):
        decode_caption(b"\xff\xfe caption")
    with pytest.raises(BadSample, match="empty"):
        decode_caption(b" \n ")
    assert decode_label(b"3\n", 4) == 3
    for data in (b"4", b"-1", b"cat", "٣".encode()):
        with pytest.raises(BadSample, match="bad label"):
            decode_label(data, 4)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (20, 60, slice(None), slice(20, 40)),
        (60, 20, slice(20, 40), slice(None)),
        (20, 61, slice(None), slice(20, 40)),  # half a pixel to the left
        (7, 7, slice(None), slice(None)),
        (1, 5, slice(None), slice(2, 3)),
    ],
)
def test_geometry_is_centre_cropped_and_resized_as_pillow_does(
    height: int, width: int, rows: slice, columns: slice
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels[rows, columns]).resize((10, 10), Image.Resampling.BICUBIC))
    found = decode_picture(encoded(pixels), 10)
    assert found.shape == (10, 10, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous  # as what is resized is, or a batch would not be channels-last
    differences = np.abs(found.astype(int) - expected)
    assert differences.max() <= 2
    assert (differences > 0).mean() <= 0.02


def test_a_picture_of_the_input_size_is_returned_as_it_is() -> None:
    same = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_picture(encoded(same), 16), same)


def test_resizing_several_at_once_changes_none_of_them() -> None:
    draws = np.random.default_rng(0)
    sides = [12, 7, 12, 10, 19, 12, 10, 1]  # the model's, larger and smaller, and of each size several or one
    squares = [draws.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]
    found = resized(squares, 10)
    assert found.shape == (8, 10, 10, 3)
    assert found.flags.c_contiguous
    for row, square in enumerate(squares):
        np.testing.assert_array_equal(found[row], resized([square], 10)[0])
        np.testing.assert_array_equal(found[row], decode_picture(encoded(square), 10))
    assert resized([squares[0], squares[2]], 10).flags.c_contiguous  # all of one size


@pytest.mark.parametrize(("kind", "height", "width"), [("PNG", 900, 700), ("JPEG", 900, 700), ("JPEG", 8, 4000)])
def test_a_square_that_waits_is_small_and_holds_nothing_else(kind: str, height: int, width: int) -> None:
    square = decode_square(encoded(np.zeros((height, width, 3), np.uint8), kind), 16)
    assert len(square) <= 32
    held = square if square.base is None else square.base
    assert held.nbytes <= 2 * 32 * 32 * 3


def test_a_large_jpeg_is_decoded_at_reduced_size_and_looks_the_same() -> None:
    rows, columns = np.mgrid[0:480, 0:640]
    pixels = np.stack([rows / 480 * 255, columns / 640 * 255, 128 + 0 * rows], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    full = Image.fromarray(pixels[:, 80:560]).resize((224, 224), Image.Resampling.BICUBIC)
    square = decode_picture(buffer.getvalue(), 224)
    assert np.abs(square.astype(int) - np.asarray(full).astype(int)).max() <= 6


def jpeg(**options: Any) -> bytes:
    """A noisy JPEG of 16 x 16."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_a_jpeg_whose_sampling_has_no_name_is_what_pillow_makes_of_it() -> None:
    data = bytearray(jpeg(subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x14  # luma of 1 x 4
    with pytest.raises(KeyError):
        decode_jpeg_header(bytes(data))
    expected = as_pillow_has_it(bytes(data))
    assert expected is not None
    assert np.array_equal(decode_picture(bytes(data), 16), expected)


JPEGS = {
    "usual": jpeg(),
    "full colour": jpeg(quality=95, subsampling=0),
    "half colour": jpeg(subsampling=1),
    "progressive": jpeg(progressive=True),
    "optimised": jpeg(optimize=True),
    "restarts": jpeg(restart_marker_rows=1),
    "rgb": jpeg(keep_rgb=True),
    "grey": jpeg(mode="L"),
}


def as_pillow_has_it(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_of_the_input_size_takes_the_short_way_to_the_same_pixels(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = as_pillow_has_it(data)
    monkeypatch.setattr(Image, "open", None)
    np.testing.assert_array_equal(decode_picture(data, 16), expected)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"subsampling": 0},
    {"subsampling": 1},
    {"progressive": True},
    {"keep_rgb": True},
]


def the_long_way(data: bytes, monkeypatch: pytest.MonkeyPatch) -> np.ndarray | None:
    """What Pillow's decoder leads to, or None."""
    with monkeypatch.context() as patch:
        patch.setattr(samples, "decode_jpeg_header", Mock(side_effect=ValueError))
        try:
            return decode_picture(data, 16)
        except BadSample:
            return None


SIZES = [(15, 33), (16, 40), (31, 45), (32, 33), (63, 64), (64, 65), (129, 200), (3, 2)]


@pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(each) or "usual" for each in OPTIONS])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_jpeg_of_any_size_takes_the_short_way_to_the_same_pixels(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), "JPEG", **options)
    expected = the_long_way(data, monkeypatch)
    monkeypatch.setattr(samples, "opened_picture", None)
    np.testing.assert_array_equal(decode_picture(data, 16), expected)


@pytest.mark.parametrize("size", [(12, 14), (40, 35)], ids=str)
def test_a_damaged_jpeg_of_another_size_is_what_pillow_makes_of_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(1)
    whole = encoded(draws.integers(0, 256, (*size, 3), dtype=np.uint8), "JPEG")
    damaged = [whole[:end] for end in range(2, len(whole), 11)]
    for _ in range(300):
        changed = bytearray(whole)
        changed[draws.integers(2, len(whole))] = draws.integers(256)
        damaged.append(bytes(changed))
    expected = [the_long_way(data, monkeypatch) for data in damaged]
    assert 20 < sum(pixels is None for pixels in expected) < len(damaged) - 100
    for data, wanted in zip(damaged, expected, strict=True):
        if wanted is None:
            with pytest.raises(BadSample):
                decode_picture(data, 16)
        else:
            np.testing.assert_array_equal(decode_picture(data, 16), wanted)


def test_a_cmyk_jpeg_of_the_input_size_goes_the_long_way() -> None:
    data = jpeg(mode="CMYK")
    np.testing.assert_array_equal(decode_picture(data, 16), as_pillow_has_it(data))


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_damaged_jpeg_of_the_input_size_is_what_pillow_makes_of_it(data: bytes) -> None:
    draws = np.random.default_rng(1)
    damaged = [data[:end] for end in range(2, len(data), 7)]
    for _ in range(300):
        changed = bytearray(data)
        changed[draws.integers(2, len(data))] = draws.integers(256)
        damaged.append(bytes(changed))
    found, expected = [], []
    for case in damaged:
        expected.append(as_pillow_has_it(case))
        try:
            found.append(decode_picture(case, 16))
        except BadSample:
            found.append(None)
    assert sum(pixels is None for pixels in expected) > 20
    for pixels, wanted in zip(found, expected, strict=True):
        # A change of the size is resized by the one and not by the other.
        if wanted is None or wanted.shape == (16, 16, 3):
            np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    picture = Image.new("RGB", (8, 8), (200, 100, 50)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = picture.convert("I").convert("I;16")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode_picture(buffer.getvalue(), 8).shape == (8, 8, 3)
