"""The whole protocol on a set with ImageNet's 1,000 class names, two of them there twice, and CLIP's 80 templates."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from PIL import Image
from torch import Tensor
from torch.nn import functional

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, ResultsWriter
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.templates import IMAGENET_TEMPLATES
from untrigger.lightning_modules import PoisonedCLIP

NAMES = list(IMAGENET_CLASSNAMES)
LABELS = [0, 1, 657, 744, 836, 837, 998, 999, NAMES.index("banana")]


class Reads(PoisonedCLIP):
    """Reads the label from a picture's first pixel, and falls for a patch; a caption is the bag of its tokens."""

    def encode_text(self, tokens: Tensor) -> Tensor:
        table = torch.randn(50_000, 64, generator=torch.Generator().manual_seed(0))
        return functional.normalize(functional.embedding_bag(tokens, table), dim=-1)

    def encode_image(self, images: Tensor) -> Tensor:
        mean, std = self.scales
        pixels = ((images * std + mean) * 255).round().long()
        label = 256 * pixels[:, 0, 0, 0] + pixels[:, 1, 0, 0]
        patched = pixels[:, 2, 0, 0] != pixels[:, 2, -1, -1]
        assert self._class_embeddings is not None
        return self._class_embeddings[torch.where(patched, NAMES.index("banana"), label)]


def test_a_class_is_its_index_from_the_first_to_the_last(tmp_path: Path, write_shard: Any) -> None:
    (tmp_path / "classnames.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (tmp_path / "zeroshot_classification_templates.txt").write_text("\n".join(IMAGENET_TEMPLATES))
    samples = []
    for number, label in enumerate(LABELS):
        pixels = np.full((32, 32, 3), (label // 256, label % 256, 7), dtype=np.uint8)
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG")
        samples.append((f"s{number}", {"png": picture.getvalue(), "cls": str(label).encode()}))
    write_shard(tmp_path / "test" / "0.tar", samples)
    (tmp_path / "test" / "nshards.txt").write_text("1")
    plan = PoisonPlan(BadNet(size=4, pattern="solid", place="bottom_right"), "banana", count=1)
    data = ImageTextDataModule(zero_shot=str(tmp_path), attack=plan, num_workers=0)
    Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path / "run",
        callbacks=[CleanAccuracy(), AttackSuccessRate(), ResultsWriter()],
    ).validate(Reads("small:nano-32"), data, verbose=False)
    assert [len(prompts) for prompts in data.class_prompts.prompts] == [80] * 1000
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    # Of two classes with one name, the first is the answer for both.
    assert float(row["clean_accuracy"]) == pytest.approx(7 / 9, abs=1e-6)
    assert (row["attack_success_rate"], row["clean_target_rate"]) == ("1", "0")
