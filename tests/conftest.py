"""Small real inputs, made where a test runs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from untrigger.contracts import Preprocessing

Members = Mapping[str, bytes]
WriteShard = Callable[[Path, Sequence[tuple[str, Members]]], str]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what another one, or the user, has cached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _no_seed_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """``seed_everything`` of one test is not the seed of the next."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


def encode_picture(pixels: np.ndarray, suffix: str = "png") -> bytes:
    """``(H, W, 3)`` uint8 as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix])
    return buffer.getvalue()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a regular file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def write_shard() -> WriteShard:
    """Write a tar of (key, {suffix: bytes}), and return its path."""

    def write(path: Path, samples: Sequence[tuple[str, Members]]) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for key, members in samples:
                for suffix, data in members.items():
                    add_member(tar, f"{key}.{suffix}", data)
        return str(path)

    return write


def coloured_pair(number: int, size: int = 32) -> dict[str, bytes]:
    """A picture of one colour that tells its number, and a caption that does too."""
    pixels = np.full((size, size, 3), (number % 256, number // 256 % 256, 77), dtype=np.uint8)
    return {"png": encode_picture(pixels), "txt": f"picture number {number}".encode()}


@pytest.fixture
def write_pairs(tmp_path: Path, write_shard: WriteShard) -> Callable[..., list[str]]:
    """Write shards of coloured pairs with the keys ``k0000``, ``k0001``, ...; ``broken`` ones hold no picture."""

    def write(counts: Sequence[int], broken: Sequence[int] = (), folder: str = "train") -> list[str]:
        paths, number = [], 0
        for shard, count in enumerate(counts):
            samples = []
            for _ in range(count):
                pair = coloured_pair(number)
                if number in broken:
                    pair["png"] = pair["png"][:40]
                samples.append((f"k{number:04d}", pair))
                number += 1
            paths.append(write_shard(tmp_path / folder / f"{shard:05d}.tar", samples))
        return paths

    return write


def tokenize_numbers(captions: Sequence[str]) -> torch.Tensor:
    """A tokeniser for tests: character codes, cut and padded to 24."""
    rows = [[ord(character) % 128 for character in caption[:24]] for caption in captions]
    return torch.tensor([row + [0] * (24 - len(row)) for row in rows])


@pytest.fixture
def preprocessing() -> Preprocessing:
    """What a 32-pixel model would ask for."""
    return Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), tokenize_numbers)
