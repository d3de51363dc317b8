"""A small model, small data and settings that end in seconds."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from untrigger.commands.check import examination
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules.encoders import build_encoder

UBT = {
    "rounds": 1,
    "sampled_pairs": 64,
    "min_word_share": 0.1,
    "evidence": [{"class_path": "DetailMargin"}],
    "repair": {"epochs": 1, "steps": 1, "batch_size": 4},
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.setattr(examination, "_PICTURES", 32)
    monkeypatch.setattr(examination, "_STEPS", 3)
    monkeypatch.setattr(examination, "_BATCH", 8)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of 64 pairs."""
    folder = tmp_path_factory.mktemp("scraped")
    write_generated_data(folder, 64, 10)
    return str(folder / "train")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint."""
    torch.manual_seed(0)
    encoder = build_encoder("small:nano-32")
    tensors = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    path = tmp_path_factory.mktemp("model") / "downloaded.ckpt"
    torch.save({"state_dict": tensors, "hyper_parameters": {"encoder": "small:nano-32"}, "loops": {}}, path)
    return str(path)


@pytest.fixture
def ubt(tmp_path: Path) -> Any:
    """Write a config of UBT: one that finds something, or nothing."""

    def write(alarm: bool) -> str:
        # Every p is small enough, or none on 64 pairs is.
        significance = 1.0 if alarm else 1e-300
        probe = {
            "candidates": 4,
            "epochs": 1,
            "steps": 4,
            "lr": 1e-2,
            "significance": significance,
            "min_moved": 0.0,
            "min_fragility": -1.0,
        }
        arguments = {"encoder": "small:nano-32", **UBT, "probe": probe}
        config = {
            "seed_everything": 0,
            "trainer": {
                "max_epochs": -1,
                "reload_dataloaders_every_n_epochs": 1,
                "accelerator": "cpu",
                "num_sanity_val_steps": 0,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "log_every_n_steps": 1,
            },
            "model": {"class_path": "UBT", "init_args": arguments},
            "data": {
                "class_path": "ImageTextDataModule",
                "init_args": {"batch_size": 8, "eval_batch_size": 16, "num_workers": 0},
            },
        }
        path = tmp_path / f"ubt-{alarm}.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path)

    return write


@pytest.fixture
def hostile(tmp_path: Path, write_shard: Any) -> str:
    """A shard whose captions and keys are not nice to those who print them."""
    captions = [
        "<script>alert(1)</script> dog",
        "\x1b[2J\x1b[31mdog",
        "=HYPERLINK(1) dog",
        "[bold]dog[/bold]",
    ]
    names = ["../../escape", "<b>key</b>", "=1+1", "plain"]
    pairs: Sequence[Any] = [
        (f"{name}{number}", {"png": _picture(number), "txt": f"{caption} {number}".encode()})
        for number in range(8)
        for name, caption in zip(names, captions, strict=True)
    ]
    return str(write_shard(tmp_path / "hostile.tar", pairs))


def _picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
