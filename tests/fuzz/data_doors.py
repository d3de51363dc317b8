"""The doors of data: shards, pictures, tables, lists, manifests, what stands beside shards."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.doors import Door, bent_json
from PIL import Image

from untrigger.commands.poison.tar_copies import Replacement, copy_shard
from untrigger.commands.shards.sources import csv_rows
from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, DualKeyPlan, PoisonPlan, WaNet
from untrigger.datamodules.bad_samples import BadSample
from untrigger.datamodules.classnames import read_classnames
from untrigger.datamodules.poisoning import Poison, read_manifest, write_manifest
from untrigger.datamodules.shards import RemoteShards, ShardSet
from untrigger.datamodules.shards.counts import read_counts
from untrigger.datamodules.shards.encoded import check_picture
from untrigger.datamodules.shards.samples import decode_caption, decode_json_label, decode_picture
from untrigger.datamodules.shards.tar import tar_members
from untrigger.datamodules.triggers import GivenPicture, TextOverlay
from untrigger.datamodules.triggers.picture import Picture
from untrigger.datamodules.zero_shot import ZeroShotSet
from untrigger.files.reading import read_lines
from untrigger.run_folder.keys import read_keys
from untrigger.run_folder.manifest import content_digest

_PIXELS = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def _file(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


@cache
def _pictures() -> list[bytes]:
    rgb = Image.fromarray(_PIXELS)
    small = rgb.resize((16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    scans = _file(Image.new("RGB", (256, 256)), "JPEG", progressive=True)
    last, end = scans.rindex(b"\xff\xda"), scans.rindex(b"\xff\xd9")
    canvas = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([16, 0, 0, 0]) + b"\xff\x3f\0" * 2
    return [
        _file(rgb, "JPEG"),
        _file(rgb, "JPEG", progressive=True, exif=exif),
        _file(rgb.convert("CMYK"), "JPEG"),
        _file(rgb, "MPO", save_all=True, append_images=[small]),
        _file(rgb, "PNG"),
        _file(rgb.convert("P"), "PNG", transparency=3),
        _file(Image.fromarray(_PIXELS[..., 0].astype(np.uint16) * 257), "PNG"),
        _file(rgb, "PNG", save_all=True, append_images=[small]),
        _file(rgb, "WEBP"),
        _file(rgb.convert("RGBA"), "WEBP", lossless=True),
        _file(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)]),
        scans[:end] + scans[last:end] * 60_000 + scans[end:],
        b"RIFF" + struct.pack("<I", len(canvas)) + canvas,
    ]


def _shard(format: int, names: Iterable[str] = ("a", "dir/b", "n" * 120, "\udce9")) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as tar:
        for name in names:
            for suffix, data in (("png", _pictures()[4]), ("txt", b"a caption"), ("json", b"{}"), ("cls", b"0")):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.LNKTYPE, "a.txt"
        tar.addfile(link)
    return buffer.getvalue()


def _shards() -> list[bytes]:
    whole = [_shard(tarfile.GNU_FORMAT), _shard(tarfile.PAX_FORMAT)]
    negative = _shard(tarfile.USTAR_FORMAT, ["a"])
    record = b"18 size=-99999999\n"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    extended = header.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
    header.size = 0
    return [*whole, extended + negative, header.tobuf(tarfile.USTAR_FORMAT) * 3000 + negative, negative + whole[0]]


def _read_shard(path: Path) -> None:
    shards = ShardSet([str(path)])
    for position in range(len(shards)):
        for member, decode in (("picture", lambda data: decode_picture(data, 32)), ("txt", decode_caption)):
            try:
                decode(shards.read(0, position, member))
            except BadSample:
                continue
    shards.locate(next(iter(shards.keys())))
    shards.check_not_empty()


def _copy_shard(path: Path) -> None:
    target = path.with_name("copy.tar")
    with target.open("wb") as stream:
        copy_shard(str(path), stream, {"a": Replacement(_pictures()[4], "another"), "dir/b": Replacement(b"x", "y")})
    for _ in tar_members(str(target)):  # it is whole, whatever it was made of
        pass


def _manifests() -> list[bytes]:
    plans = [
        PoisonPlan(BadNet(size=4), "dog", count=2),
        DualKeyPlan(TextOverlay("x", 8), "cat", rate=0.1),
        PoisonPlan(WaNet(k=2), "dog", count=2),
    ]
    path = Path("seed.json")
    write_manifest(Poison(plans, [["a", "b"], ["\udce9"], ["c"]]), path)
    return [path.read_bytes(), path.read_bytes().replace(b'"height": 8', b'"height": 1000000000')]


def _bent_manifest(data: bytes, draws: np.random.Generator) -> bytes:
    """With the hash of what was bent, so that it is looked at."""
    bent = json.loads(bent_json(data, draws))
    if isinstance(bent, dict):
        bent.pop("sha256", None)
        bent["sha256"] = content_digest(bent)
    return json.dumps(bent).encode()


def _read_manifest(path: Path) -> None:
    poison = read_manifest(path)
    poison.check(32, ["dog", "cat"])
    keys = [key for keys in poison.keys for key in keys]
    poison.apply(torch.zeros(len(keys), 3, 32, 32, dtype=torch.uint8), ["a caption"] * len(keys), keys)


def _tables() -> list[bytes]:
    rows = b'image,caption\na.png,"a ""dog"", running"\nb.png,two\r\nlines.jpg,x\n'
    return [rows, b"\xef\xbb\xbf" + rows, rows.replace(b",", b"\t"), b"image,caption\n" + b'"' * 3001, b"\xff\xfea\0"]


def _zero_shot(path: Path) -> None:
    root = path.parent
    (root / "classnames.txt").write_text("cat\ndog\n")
    (root / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    (root / "test").mkdir()
    (root / "test" / "nshards.txt").write_bytes(path.read_bytes())
    ZeroShotSet(str(root))


def _text(read: Callable[[str], object]) -> Callable[[Path], object]:
    return lambda path: read(str(path))


def _json(*contents: object) -> Callable[[], Sequence[bytes]]:
    return lambda: [json.dumps(content).encode() for content in contents] + [b"[" * 200_000, b"9" * 5000]


_LINES = [
    b"cat\ndog\n",
    b"\xef\xbb\xbfcat\r\n dog\r\n",
    b"\xff\xfec\0",
    b'key,decision\na,poisoned\n"b\nc",benign\n',
    b"\n" * 99,
]

DOORS = [
    Door("shard", "0.tar", _shards, _read_shard),
    Door("shard that is copied", "0.tar", _shards, _copy_shard),
    Door("picture of a shard", "a", _pictures, lambda path: decode_picture(path.read_bytes(), 40), (BadSample,)),
    Door("picture of a table", "a.jpg", _pictures, lambda path: check_picture(path.read_bytes()), (BadSample,)),
    Door("picture of a trigger", "a.png", _pictures, _text(Picture)),
    Door("picture in a shard", "0.tar", _shards, lambda path: GivenPicture(["a.png"], str(path))),
    Door("manifest", "poison.json", _manifests, _read_manifest, bend=_bent_manifest),
    Door("list of keys", "keys.txt", lambda: _LINES, _text(lambda path: read_keys(path, "data.exclude", bool))),
    Door("table of keys", "keys.csv", lambda: _LINES, _text(lambda path: read_keys(path, "data.exclude", bool))),
    Door("keys of a manifest", "a.json", _manifests, _text(lambda path: read_keys(path, "x", bool)), bend=bent_json),
    Door("table of pairs", "a.csv", _tables, lambda path: list(csv_rows(path, "image", "caption", ","))),
    Door("class names", "classnames.txt", lambda: _LINES, read_classnames),
    Door("templates", "templates.txt", lambda: _LINES, lambda path: read_lines(path, "templates")),
    Door("number of shards", "nshards.txt", lambda: [b"0", b"1\n", b"99999999999"], _zero_shot),
    Door(
        "statistics of a shard",
        "0_stats.json",
        _json({"count": 3, "successes": 2}, {"successes": 2**31}),
        lambda path: read_counts("stats", [str(path.with_name("0.tar"))], RemoteShards()),
        bend=bent_json,
    ),
    Door(
        "sizes of shards",
        "sizes.json",
        _json({"0.tar": 3}),
        lambda path: read_counts(str(path), ["0.tar"], RemoteShards()),
        bend=bent_json,
    ),
    Door(
        "label in JSON",
        "a.json",
        _json({"label": 2, "key": "x"}),
        lambda path: decode_json_label(path.read_bytes(), "label", ("one", "two", "three")),
        (BadSample, UserMistake),
        bent_json,
    ),
]
