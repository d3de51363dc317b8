"""What the size of the data costs: seconds and memory at several numbers of pairs, so that growth can be seen.

    python benchmarks/scale.py --pairs 100000 1000000 --ubt_pairs 50000 200000 --folder /tmp/scale

Pairs are generated: small JPEGs of eight colours, whose bytes are shared, in shards of 2,000 (2.6 GB for a million).
Every measurement runs in a process of its own; memory is the peak of resident memory. What was generated is deleted.

- ``stream``: indexing, the first batch, selecting 64 keys and half of all, plans by count and by rate, the pictures of
  64 keys, resuming in the middle of an epoch, and memory of the trainer and of its largest worker after 200 batches.
- ``fit``: from the start of ``untrigger fit`` to the end of its first step.
- ``ubt``: seconds a pair of each phase, and bytes a pair, with a nano encoder that was trained for a moment.
- ``remote``: 100,000 shards at a server on this machine, counted by a ``sizes.json``: to the first batch and step.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from rich.console import Console
from rich.table import Table

from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.order import ShuffledOrder
from untrigger.lightning_modules import UBT, PoisonedCLIP

PARTS = ["stream", "fit", "ubt", "remote"]
SHARD = 2_000
ENCODER = "small:nano-32"
COLOURS = {
    "tomato": (220, 60, 40),
    "banana": (240, 220, 60),
    "grass": (50, 160, 60),
    "sea": (40, 80, 200),
    "plum": (120, 40, 140),
    "snow": (240, 240, 240),
    "coal": (30, 30, 30),
    "pumpkin": (240, 140, 30),
}
REMOTE_SHARDS, REMOTE_PAIRS = 100_000, 100


def member(name: str, data: bytes) -> bytes:
    """A file in a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def pictures(of_each: int = 32) -> list[tuple[bytes, str]]:
    """JPEGs and the colour that each shows."""
    draws = np.random.default_rng(0)
    made = []
    for name, colour in COLOURS.items():
        for _ in range(of_each):
            slope, angle = np.linspace(-25, 25, 32), draws.uniform(0, 7)
            shade = np.cos(angle) * slope[None, :, None] + np.sin(angle) * slope[:, None, None]
            pixels = np.array(colour) + draws.normal(0, 12, 3) + shade + draws.normal(0, 4, (32, 32, 3))
            buffer = BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
            made.append((buffer.getvalue(), name))
    return made


def write_pairs(folder: Path, pairs: int, shard_size: int = SHARD) -> float:
    """Write shards; the seconds that it took."""
    folder.mkdir(parents=True, exist_ok=True)
    started, made, draws = time.perf_counter(), pictures(), np.random.default_rng(1)
    for first in range(0, pairs, shard_size):
        chosen = draws.integers(len(made), size=min(shard_size, pairs - first)).tolist()
        with (folder / f"{first // shard_size:05d}.tar").open("wb") as file:
            for number, choice in enumerate(chosen, first):
                jpeg, colour = made[choice]
                caption = f"a photo of a {colour}, number {number % 1000}"
                file.write(member(f"{number:09d}.jpg", jpeg) + member(f"{number:09d}.txt", caption.encode()))
            file.write(bytes(1024))
    return time.perf_counter() - started


def megabytes(pid: int | str = "self") -> float:
    """Peak of the resident memory of a process. Not getrusage's, which is inherited from who started it."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def largest_worker() -> float:
    """The same of the largest child."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return max((megabytes(pid) for pid in children), default=float("nan"))


def apart(measure: Any, *arguments: Any) -> dict[str, float]:
    """What a measurement finds in a process of its own."""
    # A pool's processes could start no workers.
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        found: dict[str, float] = executor.submit(measure, *arguments).result()
    return found


class Clock:
    """Seconds by name.

    Args:
        found: Where they are left.
    """

    def __init__(self, found: dict[str, float]) -> None:
        self.found = found

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        started = time.perf_counter()
        yield
        self.found[name] = time.perf_counter() - started


def data_of(folder: Path | str, workers: int = 0, **arguments: Any) -> ImageTextDataModule:
    """A data module that asks for what the encoder asks for."""
    data = ImageTextDataModule(str(folder), batch_size=128, num_workers=workers, seed=0, **arguments)
    data.preprocessing = PoisonedCLIP(ENCODER).preprocessing
    return data


def stream(folder: Path, pairs: int) -> dict[str, float]:
    """What a run asks of its data."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    clock, data = Clock(found), data_of(folder)
    with clock("index, s"):
        data.setup("fit")
    with clock("first batch, s"):
        next(iter(data.train_dataloader()))
    keys = [f"{number:09d}" for number in range(0, pairs, 2)]
    few = keys[:: max(len(keys) // 64, 1)][:64]
    for name, chosen in (("64 keys", few), ("half of all keys", keys)):
        with clock(f"select {name}, s"):
            data.select(chosen)
        with clock(f"first batch of {name}, s"):
            if len(chosen) >= data.batch_size:
                next(iter(data.train_dataloader()))
            else:
                next(iter(data.predict_dataloader()))
        data.select(None)
    with clock("pictures of 64 keys, s"):
        data.pictures(few)
    loader = data.train_dataloader()
    loader.load_state_dict(loader.state_dict() | {"batches": len(loader) // 2})
    with clock("first batch in the middle, s"):
        next(iter(loader))
    found["memory, MB"] = megabytes()
    return found


def planned(folder: Path, plan: PoisonPlan) -> dict[str, float]:
    """What a plan adds to the set-up."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    plain, data = data_of(folder), data_of(folder, poison=plan)
    plain.setup("fit")
    with Clock(found)("index and plan, s"):
        data.setup("fit")
    found["poisoned"] = len(data.poisoned_keys)
    found["memory, MB"] = megabytes()
    return found


def workers(folder: Path, batches: int = 200) -> dict[str, float]:
    """Memory of who trains and of who reads."""
    torch.set_num_threads(1)
    data = data_of(folder, workers=2)
    data.setup("fit")
    loader = iter(data.train_dataloader())
    for _ in range(batches):
        next(loader, None)
    return {"trainer, MB": megabytes(), "largest worker, MB": largest_worker()}


def first_step(folder: Path | str, *options: str) -> dict[str, float]:
    """Seconds from the start of a process to the end of a run of one step, and how many of them it was computing."""
    with tempfile.TemporaryDirectory() as root:
        arguments = {
            "--model": "PoisonedCLIP",
            "--model.encoder": ENCODER,
            "--data": "ImageTextDataModule",
            "--data.train_shards": str(folder),
            "--trainer.max_steps": "1",
            "--trainer.accelerator": "cpu",
            "--trainer.default_root_dir": root,
        }
        command = [sys.executable, "-m", "untrigger.cli", "fit", *(word for pair in arguments.items() for word in pair)]
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, *options], check=True, capture_output=True)
        took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"fit of one step, s": took, "the same, processor s": computed}


class Peak(Callback):
    """Notes the memory before the first step."""

    held = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Note it, and count the peak from here."""
        self.held = float(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]
        Path("/proc/self/clear_refs").write_text("5")


def trainer(root: Path, *callbacks: Callback, **limits: Any) -> Trainer:
    """One that leaves nothing but its figures."""
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu", logger=CSVLogger(root), default_root_dir=root, callbacks=list(callbacks), **(quiet | limits)
    )


def ubt(folder: Path, pairs: int, root: Path) -> dict[str, float]:
    """Seconds and bytes a pair of UBT on a model that was trained for 300 steps."""
    torch.set_num_threads(1)
    seed_everything(0)
    arguments: dict[str, Any] = {"poison": PoisonPlan(BadNet(size=10), "tomato", rate=0.01)}
    data, clip, peak = data_of(folder, **arguments), PoisonedCLIP(ENCODER, lr=2e-3), Peak()
    trainer(root / "clip", max_steps=300).fit(clip, data)
    model = root / "model.ckpt"
    torch.save({"state_dict": clip.state_dict(), "hyper_parameters": {"encoder": ENCODER}}, model)
    defence, data = UBT(ENCODER, init_from=str(model), rounds=1), data_of(folder, **arguments)
    run = trainer(root / "ubt", peak, max_epochs=-1, reload_dataloaders_every_n_epochs=1)
    started = time.perf_counter()
    run.fit(defence, data)
    found = {"whole run, s": time.perf_counter() - started}
    for line in Path(run.logger.log_dir, "metrics.csv").read_text().splitlines()[:1]:  # type: ignore[union-attr,arg-type]
        names = line.split(",")
    for line in Path(run.logger.log_dir, "metrics.csv").read_text().splitlines()[1:]:  # type: ignore[union-attr,arg-type]
        for name, value in zip(names, line.split(","), strict=True):
            if name.startswith("ubt/seconds/") and value:
                phase = name.rpartition("/")[2]
                found[f"{phase}, s"] = found.get(f"{phase}, s", 0.0) + float(value)
    found["score, microseconds a pair"] = 1e6 * found["score, s"] / pairs
    found["memory beside the model's, bytes a pair"] = (megabytes() - peak.held) * 2**20 / pairs
    found["words"] = len(defence.findings.words)
    return found


class OneShard(BaseHTTPRequestHandler):
    """Serves one tar under every number, and how many pairs each has."""

    protocol_version = "HTTP/1.1"

    def __init__(self, shard: bytes, sizes: bytes, *arguments: Any) -> None:
        self.shard, self.sizes = shard, sizes
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Serve."""
        content = self.sizes if self.path.endswith("sizes.json") else self.shard
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def remote_batch(url: str, last: int) -> dict[str, float]:
    """To the first batch."""
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    with Clock(found)("first batch, s"):
        data = data_of(f"{url}/{{00000..{last}}}.tar", counts=f"{url}/sizes.json")
        data.setup("fit")
        next(iter(data.train_dataloader()))
    found["memory, MB"] = megabytes()
    return found


def remote(folder: Path, shards: int) -> dict[str, float]:
    """Many shards at a server on this machine."""
    write_pairs(folder / "remote", REMOTE_PAIRS, REMOTE_PAIRS)
    shard = (folder / "remote" / "00000.tar").read_bytes()
    sizes = json.dumps({f"{number:05d}.tar": REMOTE_PAIRS for number in range(shards)}).encode()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(OneShard, shard, sizes))
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    found = apart(remote_batch, url, shards - 1)
    counts = ["--data.counts", f"{url}/sizes.json"]
    found |= first_step(f"{url}/{{00000..{shards - 1:05d}}}.tar", *counts)
    server.shutdown()
    return found


def order(pairs: int) -> dict[str, float]:
    """The order of an epoch alone."""
    found: dict[str, float] = {}
    counts = np.full(pairs // SHARD, SHARD)
    with Clock(found)("order of an epoch, s"):
        ShuffledOrder(counts, 128, 0, 10_000, 0, 1).share(0, 0, 1).batch(0)
    return found


def show(title: str, found: dict[int, dict[str, float]]) -> None:
    """A column for each number of pairs, and by which power of it each figure grows."""
    sizes = sorted(found)
    table = Table("", *(f"{size:,}" for size in sizes), *(["grows as n to the"] if len(sizes) > 1 else []), title=title)
    for name in found[sizes[0]]:
        figures = [found[size].get(name, float("nan")) for size in sizes]
        grown = []
        if len(sizes) > 1:
            grown = [f"{np.log(figures[-1] / figures[0]) / np.log(sizes[-1] / sizes[0]):.2f}"]
        table.add_row(name, *(f"{figure:,.3g}" if figure < 1000 else f"{figure:,.0f}" for figure in figures), *grown)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--ubt_pairs", type=int, nargs="*", default=[50_000, 200_000])
    parser.add_argument("--remote_shards", type=int, default=REMOTE_SHARDS)
    parser.add_argument("--folder", help="where the data is made and deleted again; a temporary one unless given")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    chosen = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=chosen.folder))
    try:
        if "remote" in chosen.only:
            show("remote shards", {chosen.remote_shards: remote(root, chosen.remote_shards)})
        if {"stream", "fit"} & set(chosen.only):
            show("pairs", {pairs: of_pairs(root, pairs, chosen.only) for pairs in chosen.pairs})
        if "ubt" in chosen.only:
            show("UBT, pairs", {pairs: of_ubt(root, pairs) for pairs in chosen.ubt_pairs})
    finally:
        shutil.rmtree(root)


def of_pairs(root: Path, pairs: int, parts: list[str]) -> dict[str, float]:
    """Everything but UBT."""
    folder = root / str(pairs)
    found = {"writing the shards, s": write_pairs(folder, pairs)}
    if "stream" in parts:
        found |= apart(stream, folder, pairs)
        for name, plan in (
            ("count", PoisonPlan(BadNet(), "tomato", count=1500)),
            ("rate", PoisonPlan(BadNet(), "tomato", rate=0.01)),
        ):
            found |= {f"plan by {name}: {what}": value for what, value in apart(planned, folder, plan).items()}
        found |= apart(workers, folder) | order(pairs)
    if "fit" in parts:
        found |= first_step(folder)
    shutil.rmtree(folder)
    return found


def of_ubt(root: Path, pairs: int) -> dict[str, float]:
    """UBT."""
    folder = root / f"ubt-{pairs}"
    write_pairs(folder / "train", pairs)
    found = apart(ubt, folder / "train", pairs, folder)
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    main()
