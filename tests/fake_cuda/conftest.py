"""The device for all tests that need none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_device import Bench, FakeGPU, fake_gpu

from untrigger.datamodules.generated import write_generated_data


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    with fake_gpu(monkeypatch) as device:
        yield device


@pytest.fixture
def bench(gpu: FakeGPU, tmp_path: Path) -> Bench:
    return Bench(gpu, tmp_path / "run")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zero-shot set, with the training shards in ``train``."""
    written = tmp_path_factory.mktemp("data")
    write_generated_data(written, 160, 40)
    return written
