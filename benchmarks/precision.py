"""What the precision does to a model: the same poisoned run in 32-true, bf16-mixed and 16-mixed, and its figures.

    python benchmarks/precision.py --train_shards 'cifar10/train/{00000..00009}.tar' --zero_shot cifar10

Each run is an ``untrigger fit`` in a process of its own, with the same seed. On a GPU all is Lightning's. A CPU has no
fast float16, and Lightning uses bf16-mixed instead of 16-mixed there; ``Float16OnCPU`` does it after all: autocast
to float16, tensors, activations and gradients in float16, the loss scaled and steps with an overflow left out, as on a
GPU. Products of matrices and convolutions alone are summed in float32 and then rounded, as tensor cores do.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

FIGURES = ("clean_accuracy", "attack_success_rate", "clean_target_rate")
_aten = torch.ops.aten
_PRODUCTS = {
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten.baddbmm.default,
    _aten.convolution.default,
    _aten.convolution_backward.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


class TensorCores(TorchDispatchMode):
    """Inside, products of float16 tensors are summed in float32 and rounded to float16."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        halves = [leaf for leaf in args if isinstance(leaf, Tensor) and leaf.dtype == torch.float16]
        if func not in _PRODUCTS or not halves:
            return func(*args, **(kwargs or {}))
        found = func(*tree_map_only(Tensor, Tensor.float, args), **(kwargs or {}))
        return tree_map_only(Tensor, lambda value: value.half() if value.dtype == torch.float32 else value, found)


class Float16OnCPU(MixedPrecision):
    """Lightning's 16-mixed, on a CPU."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu")

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Autocast to float16."""
        with super().forward_context(), TensorCores():
            yield

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Go back in float16."""
        with TensorCores():
            super().backward(*args, **kwargs)


def trained(options: list[str], precision: str, folder: Path) -> dict[str, str]:
    """The row of results of a run."""
    chosen = ["--trainer.precision", precision]
    if precision == "16-mixed" and not torch.cuda.is_available():
        chosen = ["--trainer.precision", "null", "--trainer.plugins", "precision.Float16OnCPU"]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "untrigger.cli", "fit", *options, *chosen]
    subprocess.run(
        [*command, "--trainer.default_root_dir", str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_shards", required=True, help="CIFAR-10 pairs of 32 pixels, a brace pattern")
    parser.add_argument("--zero_shot", required=True, help="CIFAR-10 in the layout of CLIP-benchmark")
    parser.add_argument("--config", default="configs/poisoned_clip/cifar10.yaml")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed", "16-mixed"])
    parser.add_argument("--out", type=Path, default=Path("runs/precision"), help="where the run folders go")
    chosen = parser.parse_args()
    options = ["--config", chosen.config, "--data.train_shards", chosen.train_shards]
    options += ["--data.zero_shot", chosen.zero_shot, "--seed_everything", str(chosen.seed)]
    table = Table("precision", *(name.replace("_", " ") for name in FIGURES), "seconds", title=f"seed {chosen.seed}")
    for precision in chosen.precisions:
        row = trained(options, precision, chosen.out / precision)
        table.add_row(precision, *(f"{100 * float(row[name]):.2f} %" for name in FIGURES), row["seconds"])
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
