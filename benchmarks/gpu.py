"""Training on a GPU: samples per second, the share of the card's peak that they are, and memory.

    python benchmarks/gpu.py

Steps of contrastive training on pictures and captions that lie on the device already, so that it is the encoders, the
loss and the optimiser that are measured. Floating-point operations are those that ``torch.utils.flop_counter`` counts
in the forward and backward pass of a step, without the second forward pass of micro-batches; the peak is the
manufacturer's, in bfloat16 without sparsity.
"""

from __future__ import annotations

import argparse
import datetime
import time
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from untrigger.lightning_modules import PoisonedCLIP

PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
}
"""Teraflops in bfloat16, dense, by what a card's name holds; the longer names come first."""


class Setting(NamedTuple):
    """What is measured."""

    encoder: str
    batch_size: int
    options: dict[str, Any]


AT_224 = [
    Setting(encoder, batch_size, options)
    for encoder, batch_size in (("open_clip:RN50", 256), ("open_clip:ViT-B-32", 1024))
    for options in ({}, {"channels_last": True}, {"channels_last": True, "compile": True})
]
LARGE = [Setting("small:base-32", 1024, options) for options in ({}, {"micro_batch_size": 128})]
LARGE += [Setting("open_clip:ViT-B-32", 4096, options) for options in ({}, {"micro_batch_size": 512})]


class Steps:
    """Training steps on one batch.

    Args:
        setting: Of what.
        device: Where, ``cuda`` or ``cpu``.
    """

    def __init__(self, setting: Setting, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.module = PoisonedCLIP(setting.encoder, **setting.options).to(device)
        vars(self.module)["log_losses"] = lambda *_, **__: None  # there is no trainer to log to
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-4, fused=True)
        side, captions = self.module.preprocessing.image_size, [f"pair {n}" for n in range(setting.batch_size)]
        self.batch: Any = {
            "key": captions,
            "image": torch.randn(setting.batch_size, 3, side, side, device=device),
            "tokens": self.module.preprocessing.tokenize(captions).to(device),
        }

    def step(self) -> None:
        """One step in bf16-mixed."""
        with torch.autocast(self.device, torch.bfloat16):
            loss: Any = self.module.training_step(self.batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def seconds(self, steps: int) -> float:
        """Of a step, the mean of several after three that warm up."""
        for _ in range(3):
            self.step()
        self.wait()
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - started) / steps

    def gigabytes(self) -> float:
        """The peak of a step above what lies on the device between steps; not a number on a CPU."""
        if self.device == "cpu":
            return float("nan")
        self.optimizer.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        self.step()
        return (torch.cuda.max_memory_allocated() - held) / 2**30

    def wait(self) -> None:
        """For the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def flops_of_a_sample(encoder: str, device: str) -> float:
    """Floating-point operations of the forward and backward pass, of a small plain batch."""
    steps = Steps(Setting(encoder, 8, {}), device)
    with FlopCounterMode(display=False) as counter:
        steps.step()
    return float(counter.get_total_flops()) / 8


def peak_of(card: str, given: float | None) -> float:
    """The card's peak, in floating-point operations per second; not a number where it is not known."""
    known = next((peak for name, peak in PEAKS.items() if name in card), float("nan"))
    return (known if given is None else given) * 1e12


def measured(setting: Setting, device: str, count: int, peak: float) -> list[str]:
    """Samples a second, the share of the peak that they are, and the memory of a step."""
    steps = Steps(setting, device)
    rate = setting.batch_size / steps.seconds(count)
    share = rate * flops_of_a_sample(setting.encoder, device) / peak
    return [f"{rate:,.0f}", f"{100 * share:.1f} %", f"{steps.gigabytes():.2f} GB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--peak", type=float, help="teraflops of the card, instead of the table's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--encoders", nargs="*", help="only these")
    parser.add_argument("--batch_size", type=int, help="instead of those of the list")
    chosen = parser.parse_args()
    torch.set_float32_matmul_precision("high")  # as the command does
    card = torch.cuda.get_device_name() if chosen.device == "cuda" else "CPU"
    peak = peak_of(card, chosen.peak)
    title = f"{card}, {datetime.date.today()}, torch {torch.__version__}, bf16-mixed"
    table = Table("encoder", "batch", "options", "samples/s", "share of peak", "memory of a step", title=title)
    for setting in AT_224 + LARGE:
        if chosen.encoders and setting.encoder not in chosen.encoders:
            continue
        setting = setting._replace(batch_size=chosen.batch_size or setting.batch_size)
        options = ", ".join(f"{name} {value}" for name, value in setting.options.items())
        try:
            figures = measured(setting, chosen.device, chosen.steps, peak)
        except torch.OutOfMemoryError:  # a smaller card; what it can do is reported all the same
            figures = ["out of memory"]
        table.add_row(setting.encoder, str(setting.batch_size), options, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
