"""Draws the figures that need runs: ``python docs/figures/demo.py FOLDER [FIGURE...]``, all of them unless said.

The runs are those of ``untrigger demo --out demo``, which ``story`` is content with, and, beside it,

    untrigger predict --model LocalDensityCLIP --model.encoder small:base-32 --data ImageTextDataModule \
      --model.init_from demo/poisoned_clip/last.ckpt --data.poison demo/poisoned_clip/poison.json \
      --data.train_shards 'demo/shapes/train/{00000..00015}.tar' --trainer.default_root_dir demo-density
    untrigger fit --config configs/decree/cifar10.yaml --trainer.max_epochs 8 --model.init_from demo/MODEL/last.ckpt \
      --data.train_shards 'demo/shapes/train/{00016..00019}.tar' --trainer.default_root_dir demo-decree-MODEL
    untrigger fit --config configs/badclip/cifar10.yaml --model.target star --model.patch_size 6 \
      --model.init_from demo/cleanclip/last.ckpt --data.train_shards 'demo/shapes/train/{00016..00019}.tar' \
      --trainer.default_root_dir demo-badclip

with MODEL poisoned_clip and cleanclip.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import safetensors.torch
import torch
from attacks import HERE, JPEG, PHOTOGRAPHS, photographs
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from untrigger.callbacks.artefacts.figures import DPI, trigger_gallery
from untrigger.datamodules import ImageTextDataModule, Patch
from untrigger.lightning_modules import PoisonedCLIP

STORY = {"poisoned_clip": "poisoned CLIP", "cleanclip": "after CleanCLIP", "ubt": "after UBT"}
INVERTED = ("poisoned_clip", "cleanclip")
COLOURS = ("tab:red", "tab:blue", "tab:green")
MEASURES = {
    "clean_accuracy": "clean\naccuracy",
    "attack_success_rate": "attack\nsuccess",
    "non_target_triggered_accuracy": "accuracy under\nthe trigger",
}
PICTURES = 7


class Seen(Callback):
    """Keeps the first batch of an evaluation and what the model takes its triggered pictures for."""

    clean: Tensor
    triggered: Tensor
    labels: Tensor
    taken_for: Tensor

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Keep it."""
        if batch_idx == 0:
            self.clean, self.labels = batch["image"], batch["label"]
            ((_, self.triggered),) = batch["triggered"].items()
            ((_, logits),) = outputs["triggered_logits"].items()
            self.taken_for = logits.argmax(dim=1)


def seen_by(demo: Path, model: str) -> tuple[Seen, list[str]]:
    """What a model of the demo makes of the triggered test pictures, and the names of the classes."""
    seen, data = Seen(), ImageTextDataModule(None, str(demo / "shapes"), attack=str(demo / "poisoned_clip/poison.json"))
    trainer = Trainer(callbacks=[seen], logger=False, enable_progress_bar=False, limit_val_batches=1)
    module = PoisonedCLIP("small:base-32", init_from=str(demo / model / "last.ckpt"))
    trainer.validate(module, data, verbose=False)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in module.preprocessing[1:3])
    seen.clean, seen.triggered = (each * std + mean for each in (seen.clean, seen.triggered))
    return seen, data.class_prompts.classnames


def measured(demo: Path, model: str) -> list[float]:
    """The figures of a run, in %."""
    with (demo / model / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return [100 * float(row[measure]) for measure in MEASURES]


def story(demo: Path) -> Figure:
    """The same triggered pictures as the models see them, and three figures of each model."""
    models = {model: seen_by(demo, model) for model in STORY}
    seen, names = models["poisoned_clip"]
    others = (seen.labels != names.index("star")).nonzero()[:PICTURES, 0]
    figure = Figure(figsize=(11.5, 3.6), dpi=DPI, facecolor="white")
    for column, picture in enumerate(others.tolist()):
        for row, images in enumerate((seen.clean, seen.triggered)):
            axes = figure.add_axes((0.115 + 0.078 * column, 0.67 - 0.235 * row, 0.072, 0.22))
            axes.imshow(images[picture].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
        middle = 0.151 + 0.078 * column
        label = int(seen.labels[picture])
        figure.text(middle, 0.91, names[label], ha="center", fontsize=10)
        for row, (colour, (by, _)) in enumerate(zip(COLOURS, models.values(), strict=True)):
            taken = int(by.taken_for[picture])
            weight = "bold" if taken != label else "normal"
            figure.text(middle, 0.32 - 0.1 * row, names[taken], ha="center", fontsize=10, color=colour, weight=weight)
    for height, text in ((0.78, "clean"), (0.545, "with the\ntrigger")):
        figure.text(0.105, height, text, ha="right", va="center", fontsize=10)
    axes = figure.add_axes((0.72, 0.2, 0.275, 0.7))
    for number, (colour, (model, name)) in enumerate(zip(COLOURS, STORY.items(), strict=True)):
        figure.text(0.105, 0.32 - 0.1 * number, name, ha="right", fontsize=10, color=colour)
        at = [each + 0.29 * number for each in range(len(MEASURES))]
        bars = axes.bar(at, measured(demo, model), 0.27, color=colour, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=9)
    axes.set_xticks([each + 0.29 for each in range(len(MEASURES))], list(MEASURES.values()), fontsize=9)
    axes.set(ylim=(0, 112), yticks=[0, 50, 100], ylabel="%")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def decree(demo: Path) -> Figure:
    """The inverted trigger of each model: its mask, its pattern under the mask, and its norm."""
    figure = Figure(figsize=(6, 3.4), dpi=DPI, facecolor="white", layout="constrained")
    for axes, model in zip(figure.subplots(1, len(INVERTED)), INVERTED, strict=True):
        folder = demo.with_name(f"{demo.name}-decree-{model}")
        found = safetensors.torch.load_file(folder / "trigger.safetensors")
        share = json.loads((folder / "decree.json").read_text())["p_l1_norm"]
        shown = found["mask"] * found["pattern"] + (1 - found["mask"])
        axes.imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(f"{STORY[model]}\nP-L1 {share:.3f}", fontsize=10)
        axes.set(xticks=[], yticks=[])
    return figure


def density(demo: Path) -> Figure:
    """Histograms of the k-distance of poisoned and of other pairs."""
    (plan,) = json.loads((demo / "poisoned_clip" / "poison.json").read_text())["plans"]
    poisoned = set(plan["keys"])
    with (demo.with_name(f"{demo.name}-density") / "similarities.csv").open(newline="") as file:
        rows = [(row["key"] in poisoned, float(row["k_distance"])) for row in csv.DictReader(file)]
    figure = Figure(figsize=(6.5, 2.6), facecolor="white", layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(min(each for _, each in rows), max(each for _, each in rows), 60)
    for kind, colour, name in ((False, "tab:gray", "other pairs"), (True, "tab:red", "poisoned pairs")):
        values = [each for is_poisoned, each in rows if is_poisoned == kind]
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, edges, weights=weights, color=colour, alpha=0.6, label=f"{name} ({len(values):,})")
    axes.set(xlabel="k-distance (higher is sparser)", ylabel="% of the pairs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9)
    return figure


def badclip(demo: Path) -> Figure:
    """The optimised patch, enlarged without interpolation to 48 pixels, on the photographs."""
    patch = Image.open(demo.with_name(f"{demo.name}-badclip") / "patch.png").convert("RGB")
    clean = photographs()
    with TemporaryDirectory() as folder:
        file = Path(folder, "patch.png")
        patch.resize((48, 48), Image.Resampling.NEAREST).save(file)
        return trigger_gallery(clean, {"BadCLIP": Patch(str(file))(clean, PHOTOGRAPHS)})


def main(demo: Path, wanted: Collection[str]) -> None:
    """Write the figures."""
    folder = HERE / "demo"
    folder.mkdir(exist_ok=True)
    if "story" in wanted:
        story(demo).savefig(folder / "story.png", dpi=DPI)
    if "decree" in wanted:
        decree(demo).savefig(folder / "decree.png", dpi=DPI)
    if "badclip" in wanted:
        badclip(demo).savefig(folder / "badclip.jpg", dpi=DPI, pil_kwargs=JPEG)
    if "local_density" in wanted:
        with mpl.rc_context({"svg.hashsalt": "untrigger"}):
            density(demo).savefig(folder / "local_density.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ("story", "decree", "badclip", "local_density"))
