"""What micro-batches save and cost: a batch of 1,024 pairs of the CIFAR-10 config, whole and in micro-batches of 128.

    python benchmarks/large_batch.py --train_shards 'cifar10/train/{00000..00019}.tar' --zero_shot cifar10

Each run is an ``untrigger fit`` on the CPU in a process of its own, and the two sides alternate. Memory is the peak of
all steps above what the process holds when the first one starts; time is that of a step from the second on, without
waiting for the data, and processor time is what it took of it, which does not depend on what else the machine does. The
medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table


class Meter(Callback):
    """Leaves the memory and the seconds of the steps of a run in a JSON file.

    Args:
        out: The file.
    """

    def __init__(self, out: str) -> None:
        self.out, self.held, self.started = out, 0.0, (0.0, 0.0)
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clocks, and before the first step the peak of the memory."""
        if batch_idx == 0:
            self.held = megabytes("VmRSS")
            # Linux then counts the peak from here.
            Path("/proc/self/clear_refs").write_text("5")
        self.started = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clocks."""
        self.seconds.append(time.perf_counter() - self.started[0])
        self.processor.append(time.process_time() - self.started[1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        found = {
            "peak memory": megabytes("VmHWM") - self.held,
            "time": statistics.median(self.seconds[1:]),
            "processor time": statistics.median(self.processor[1:]),
        }
        Path(self.out).write_text(json.dumps(found))


def megabytes(field: str) -> float:
    """A figure of this process's status, such as its memory (``VmRSS``) and the peak of it (``VmHWM``)."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None, f"/proc/self/status has no {field}"
    return int(found[1]) / 1024


def measured(options: list[str], steps: int) -> dict[str, float]:
    """What the meter of a run measures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "meter.json")
        limits = ["--trainer.max_steps", str(steps), "--trainer.limit_val_batches", "0", "--trainer.accelerator", "cpu"]
        meter = ["--trainer.callbacks+", "large_batch.Meter", "--trainer.callbacks.out", str(out)]
        command = [sys.executable, "-m", "untrigger.cli", "fit", *options, *limits, *meter]
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [*command, "--trainer.default_root_dir", str(Path(folder, "run"))],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        found: dict[str, float] = json.loads(out.read_text())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_shards", required=True, help="CIFAR-10 pairs of 32 pixels, a brace pattern")
    parser.add_argument("--zero_shot", required=True, help="CIFAR-10 in the layout of CLIP-benchmark")
    parser.add_argument("--config", default="configs/poisoned_clip/cifar10.yaml")
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--micro_batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    options = ["--config", chosen.config, "--data.train_shards", chosen.train_shards]
    options += ["--data.zero_shot", chosen.zero_shot, "--data.batch_size", str(chosen.batch_size)]
    micro: list[dict[str, float]] = []
    whole: list[dict[str, float]] = []
    for _ in range(chosen.rounds):
        micro.append(measured([*options, "--model.micro_batch_size", str(chosen.micro_batch_size)], chosen.steps))
        whole.append(measured(options, chosen.steps))
    title = f"batch {chosen.batch_size}, median of the rounds"
    table = Table("a step", f"micro-batches of {chosen.micro_batch_size}", "whole", "ratio", title=title)
    for name, unit, digits in (("peak memory", "MB", 0), ("time", "s", 2), ("processor time", "s", 2)):
        ratio = statistics.median([a[name] / b[name] for a, b in zip(micro, whole, strict=True)])
        figures = [f"{statistics.median([run[name] for run in runs]):,.{digits}f} {unit}" for runs in (micro, whole)]
        table.add_row(name, *figures, f"{ratio:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
