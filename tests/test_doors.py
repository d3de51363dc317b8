"""One kind of input is the same at every door: what is shown, what is read, and why it is refused."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from untrigger.commands.shards.sources import Line as TableLine
from untrigger.commands.shards.sources import load_labelled, load_pair
from untrigger.commands.shards.writing import caption_templates
from untrigger.contracts import UserMistake
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.classnames import read_classnames
from untrigger.datamodules.shards.samples import decode_picture
from untrigger.datamodules.shards.writer import Skipped
from untrigger.datamodules.triggers import GivenPicture
from untrigger.datamodules.triggers.picture import Picture
from untrigger.datamodules.zero_shot import _lines
from untrigger.run_folder.keys import read_keys

SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def file(format: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


SECOND = [Image.new("RGB", (SIDE, SIDE))]
PICTURES = {
    "JPEG": file("JPEG"),
    "progressive": file("JPEG", progressive=True),
    "CMYK": file("JPEG", "CMYK"),
    "several in a JPEG": file("MPO", save_all=True, append_images=SECOND),
    "PNG": file("PNG"),
    "palette with a hole": file("PNG", "P", transparency=0),
    "grey with alpha": file("PNG", "LA"),
    "animated PNG": file("PNG", save_all=True, append_images=SECOND),
    "WebP": file("WEBP", lossless=True),
    "animated WebP": file("WEBP", lossless=True, save_all=True, append_images=SECOND),
    "GIF": file("GIF"),
    "cut": file("PNG")[:200],
    "empty": b"",
    "text": b"<!DOCTYPE html>",
}


def _loaded(found: Any) -> np.ndarray:
    if isinstance(found, Skipped):
        raise BadSample(found.kind, "")
    return decode_picture(found.picture.data, SIDE)


PICTURE_DOORS: dict[str, Callable[[Path], np.ndarray]] = {
    "shard": lambda path: decode_picture(path.read_bytes(), SIDE),
    "table": lambda path: _loaded(load_pair(path.parent, TableLine("line 2", path.name, "a caption"))),
    "folder": lambda path: _loaded(load_labelled((path, 0))),
    "pattern": lambda path: Picture(str(path)).draw(SIDE).permute(1, 2, 0).numpy(),
    "given picture": lambda path: GivenPicture([str(path)]).draw(SIDE)[0].permute(1, 2, 0).numpy(),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("name", ["a.jpg", "A.PNG", "a"])
def test_a_picture_is_the_same_at_every_door(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PICTURES[kind])
    found = {}
    for door, shown in PICTURE_DOORS.items():
        try:
            found[door] = shown(path).tobytes()
        except (BadSample, UserMistake) as refusal:
            faults = ("broken picture", "unsupported format (GIF)")
            found[door] = next((fault for fault in faults if fault in str(refusal)), str(refusal)).encode()
    assert len(set(found.values())) == 1, found.keys()
    assert (found["shard"] == b"broken picture") is (kind in ("cut", "empty", "text"))
    assert (found["shard"] == b"unsupported format (GIF)") is (kind == "GIF")


TEXTS = {
    "plain": b"cat {c}\ndog {c}\n",
    "byte order mark": codecs.BOM_UTF8 + b"cat {c}\ndog {c}\n",
    "ends of Windows": b"cat {c}\r\ndog {c}\r\n",
    "ends of old Macs": b"cat {c}\rdog {c}\r",
    "no end": b"cat {c}\n dog {c} ",
}
TEXT_DOORS: dict[str, Callable[[Path], list[str]]] = {
    "class names": read_classnames,
    "templates": caption_templates,
    "zero-shot set": _lines,
    "keys": lambda path: sorted(read_keys(str(path), "data.exclude", lambda _: True)),
}


@pytest.mark.parametrize("door", TEXT_DOORS)
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_file_is_the_same_at_every_door(kind: str, door: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(TEXTS[kind])
    assert TEXT_DOORS[door](tmp_path / "lines.txt") == ["cat {c}", "dog {c}"]


@pytest.mark.parametrize("door", TEXT_DOORS)
def test_text_of_another_encoding_is_reported_at_every_door(door: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("cat {c}\n".encode("utf-16"))
    with pytest.raises(UserMistake, match=r"lines\.txt cannot be read: .*; it looks like UTF-16 text"):
        TEXT_DOORS[door](tmp_path / "lines.txt")
