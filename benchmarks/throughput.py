"""How fast the stream and the training are, against bare loops, in one run on one machine.

    python benchmarks/throughput.py --train_shards 'cifar10/train/{00000..00019}.tar' --zero_shot cifar10

Every comparison alternates between the two sides and prints the medians and their ratio: absolute figures depend on the
machine and on what else it does, the ratios hardly do.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_loops import BareLoop, Batch, bare_training, cleanclip, contrastive
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from untrigger.datamodules import EDA, ImageTextDataModule, TransformView
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.shards import expand_shards
from untrigger.lightning_modules.encoders import Encoder, build_encoder

PARTS = ["stream", "training", "cleanclip", "training_224", "start", "memory"]
TABLE = Table("what", "ours", "bare", "ratio", title="median of the rounds")


def row(what: str, ours: list[float], bare: list[float], unit: str) -> None:
    """Add a comparison to the table."""
    a, b = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median([x / y for x, y in zip(ours, bare, strict=True)])
    TABLE.add_row(what, f"{a:,.0f} {unit}", f"{b:,.0f} {unit}", f"{ratio:.2f}")


def rate(loader: Iterable[Any], batch_size: int) -> float:
    """Samples per second of a pass, from the second batch on: starting the workers does not count."""
    batches = iter(loader)
    next(batches)
    started, count = time.perf_counter(), 0
    for _ in batches:
        count += batch_size
    return count / (time.perf_counter() - started)


def compare_stream(shards: list[str], encoder: Encoder, workers: int, rounds: int, batch_size: int, what: str) -> None:
    asked = encoder.preprocessing
    data = ImageTextDataModule(shards, batch_size=batch_size, num_workers=workers)
    data.preprocessing = asked
    data.setup("fit")
    ours: list[float] = []
    bare: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        ours.append(rate(data.train_dataloader(), batch_size))
        for draft, found in bare.items():
            loop = BareLoop(shards, asked, batch_size, draft)
            found.append(rate(DataLoader(loop, batch_size=None, num_workers=workers), batch_size))
    row(f"stream, {what}, {workers} workers", ours, bare[True], "samples/s")
    if asked.image_size > 64:
        row("  against a bare loop that decodes at full size", ours, bare[False], "samples/s")


def write_photographs(folder: Path, count: int) -> list[str]:
    """JPEGs of 640 x 480 with the detail of a photograph, in two shards."""
    rng = np.random.default_rng(0)
    paths = []
    for shard in range(2):
        path = folder / f"{shard:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(count // 2):
                coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
                picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
                noisy = np.asarray(picture).astype(int) + rng.integers(-12, 13, (480, 640, 1))
                buffer = BytesIO()
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
                for suffix, data in (("jpg", buffer.getvalue()), ("txt", f"photograph number {number}".encode())):
                    info = tarfile.TarInfo(f"{shard:05d}{number:04d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, BytesIO(data))
        paths.append(str(path))
    return paths


def fit(arguments: list[str], folder: Path) -> float:
    """Run ``untrigger fit`` in its own process; its seconds."""
    command = [sys.executable, "-m", "untrigger.cli", "fit", *arguments, "--trainer.default_root_dir", str(folder)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def rates(folder: Path) -> list[float]:
    """The windows of samples per second that a run logged."""
    with (folder / "metrics.csv").open(newline="") as handle:
        figures = [line["train/samples_per_second"] for line in csv.DictReader(handle)]
    return [float(figure) for figure in figures if figure]


def compare_training(
    options: list[str],
    loss_of: Callable[[Encoder, Batch], Tensor],
    encoder: str,
    data: ImageTextDataModule,
    lengths: tuple[int, int, int],
    what: str,
) -> None:
    """Compare ``untrigger fit`` with the bare loop, in turn; lengths are steps, steps of a log, and rounds."""
    model, (steps, every, rounds) = build_encoder(encoder), lengths
    data.preprocessing = model.preprocessing
    data.setup("fit")
    batches = [
        data.on_after_batch_transfer(batch, 0) for _, batch in zip(range(8), data.train_dataloader(), strict=False)
    ]
    held = {name: together([batch[name] for batch in batches]) for name in batches[0] if name != "key"}
    ours, bare = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            limits = ["--trainer.max_steps", str(steps + 1), "--trainer.log_every_n_steps", str(every)]
            quiet = ["--trainer.limit_val_batches", "0", "--seed_everything", str(number)]
            fit([*options, *limits, *quiet], Path(folder))
            ours.append(statistics.median(rates(Path(folder))))
        # In a process of its own, as the other side: this one has had loaders and their memory before.
        with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
            bare.append(pool.apply(bare_training, (loss_of, model, held, data.batch_size, steps)))
    row(f"training, {what}", ours, bare, "samples/s")


def together(tensors: list[Tensor]) -> Tensor:
    """One tensor; tokens are padded to the longest."""
    if tensors[0].ndim == 2:
        longest = max(tensor.shape[1] for tensor in tensors)
        tensors = [functional.pad(tensor, (0, longest - tensor.shape[1])) for tensor in tensors]
    return torch.cat(tensors)


def first_step(options: list[str]) -> float:
    """Seconds from the start of the process to the end of a run of one step, validation left out."""
    with tempfile.TemporaryDirectory() as folder:
        limits = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
        return fit([*options, *limits], Path(folder))


_PEAK = """
import os, re, sys
from pathlib import Path
from untrigger.datamodules import ImageTextDataModule
from untrigger.lightning_modules.encoders import build_encoder
data = ImageTextDataModule(sys.argv[1], batch_size=128, num_workers=2)
data.preprocessing = build_encoder("small:nano-32").preprocessing
data.setup("fit")
loader = data.train_dataloader()
for batch in loader: pass
# Not getrusage: its peak is inherited from the process that started this one. The workers are still there.
children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
peaks = [re.search(r"VmHWM:\\s+(\\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in ["self", *children]]
print(max(int(peak[1]) for peak in peaks if peak))
"""


def peak_memory(folder: Path, shards: int) -> float:
    """MB of the largest process that streams ``shards`` shards of 40 pairs once."""
    write_generated_data(folder / str(shards), shards * 40, 10, shard_size=40)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(folder / str(shards) / "train")], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_shards", required=True, help="CIFAR-10 pairs of 32 pixels, a brace pattern")
    parser.add_argument("--zero_shot", required=True, help="CIFAR-10 in the layout of CLIP-benchmark")
    parser.add_argument("--config", default="configs/poisoned_clip/cifar10.yaml")
    parser.add_argument("--cleanclip_config", default="configs/cleanclip/cifar10.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=PARTS)
    chosen = parser.parse_args()
    data = ["--data.train_shards", chosen.train_shards, "--data.zero_shot", chosen.zero_shot]
    options, cleaning = ["--config", chosen.config, *data], ["--config", chosen.cleanclip_config, *data]
    shards = expand_shards(chosen.train_shards)
    parts: dict[str, Callable[[Path], None]] = {
        "stream": lambda folder: stream_part(folder, shards, chosen.rounds),
        "training": lambda folder: training_part(options, shards, chosen.rounds),
        "cleanclip": lambda folder: cleanclip_part(cleaning, shards, chosen.rounds),
        "training_224": lambda folder: training_224_part(folder, options),
        "start": lambda folder: TABLE.add_row(
            "start to the end of the first step", f"{first_step(options):.1f} s", "", ""
        ),
        "memory": memory_part,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in chosen.only:
                parts[name](Path(folder))
        finally:
            Console(width=120).print(TABLE)


def stream_part(folder: Path, shards: list[str], rounds: int) -> None:
    for workers in (1, 2):
        compare_stream(shards[:8], build_encoder("small:base-32"), workers, rounds, 128, "32 pixels")
    photographs = write_photographs(folder, 1_200)
    compare_stream(photographs, build_encoder("open_clip:ViT-B-32"), 2, rounds, 50, "640 x 480 to 224")


def training_part(options: list[str], shards: list[str], rounds: int) -> None:
    data = ImageTextDataModule(shards, batch_size=128, num_workers=0)
    compare_training(options, contrastive, "small:base-32", data, (120, 40, rounds), "CIFAR-10 config")


def cleanclip_part(options: list[str], shards: list[str], rounds: int) -> None:
    views: dict[str, Any] = {"image_view": TransformView(), "text_view": EDA()}
    data = ImageTextDataModule(shards, batch_size=64, num_workers=0, **views)
    compare_training(options, cleanclip, "small:base-32", data, (120, 40, rounds), "CleanCLIP's CIFAR-10 config")


def training_224_part(folder: Path, options: list[str]) -> None:
    photographs = write_photographs(folder, 200)
    data = ImageTextDataModule(photographs, batch_size=16, num_workers=0)
    large = [*options[:2], "--data.train_shards", str(folder), "--data.batch_size", "16", "--data.poison", "null"]
    large += ["--model.encoder", "open_clip:ViT-B-32"]
    compare_training(large, contrastive, "open_clip:ViT-B-32", data, (6, 3, 2), "ViT-B/32 at 224 pixels, batch 16")


def memory_part(folder: Path) -> None:
    few, many = peak_memory(folder, 25), peak_memory(folder, 500)
    TABLE.add_row("peak memory, 25 and 500 shards", f"{many:,.0f} MB", f"{few:,.0f} MB", f"{many / few:.2f}")


if __name__ == "__main__":
    main()
