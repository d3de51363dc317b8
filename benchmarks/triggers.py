"""What each trigger costs on a batch of 256 pictures of 224 pixels, beside decoding them.

    python benchmarks/triggers.py

One thread. Each round measures the decoding and every trigger in turn; the medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from untrigger.datamodules import triggers as kinds
from untrigger.datamodules.shards.samples import decode_picture

COUNT, SIZE = 256, 224


def photographs(count: int) -> list[bytes]:
    """JPEGs of 224 x 224 with the detail of a photograph."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(int)
        noisy = smooth + rng.integers(-12, 13, (SIZE, SIZE, 1))
        buffer = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
    return files


def triggers(folder: Path) -> dict[str, kinds.Trigger]:
    """Every trigger, with the papers' sizes."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "patch.png")
    patch = str(folder / "patch.png")
    return {
        "BadNet": kinds.BadNet(),
        "BadNet, fresh noise": kinds.BadNet(pattern="fresh_noise"),
        "Blended": kinds.Blended(),
        "Blended, fresh noise": kinds.Blended(pattern="fresh_noise"),
        "SIG": kinds.SIG(),
        "WaNet": kinds.WaNet(),
        "WaNet, noise mode": kinds.WaNet(noise=True),
        "Stripes": kinds.Stripes(),
        "Triangles": kinds.Triangles(),
        "TextOverlay": kinds.TextOverlay(),
        "Watermark": kinds.Watermark(),
        "ColourFilter": kinds.ColourFilter(),
        "Patch": kinds.Patch(patch),
        "GivenPicture": kinds.GivenPicture([patch]),
    }


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    files = photographs(COUNT)
    keys = [f"{number:09d}" for number in range(COUNT)]
    images = torch.from_numpy(np.stack([decode_picture(file, SIZE) for file in files])).permute(0, 3, 1, 2)
    table = Table("trigger", "ms a batch", "ms to decode it", "ratio", title=f"{COUNT} pictures of {SIZE} pixels")
    with tempfile.TemporaryDirectory() as folder:
        for name, trigger in triggers(Path(folder)).items():
            trigger(images[:2], keys[:2])  # fixed patterns are drawn once
            pairs = [
                (
                    seconds(lambda stamp=trigger: stamp(images, keys)),  # type: ignore[misc]
                    seconds(lambda: [decode_picture(file, SIZE) for file in files]),
                )
                for _ in range(rounds)
            ]
            ours, decoding = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(stamp / decode for stamp, decode in pairs)
            table.add_row(name, f"{ours:.0f}", f"{decoding:.0f}", f"{ratio:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
