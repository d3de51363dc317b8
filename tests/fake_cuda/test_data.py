"""What the data module hands to the device: stamped pictures, batches, and pictures by key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import GPU, Bench, DevicesMixed
from PIL import Image

from untrigger import datamodules
from untrigger.datamodules import (
    EDA,
    SIG,
    BadNet,
    Blended,
    ColourFilter,
    Concept,
    GivenPicture,
    ImageTextDataModule,
    Patch,
    PoisonPlan,
    SingleImagePlan,
    Stripes,
    TextOverlay,
    TransformView,
    Triangles,
    Trigger,
    WaNet,
    Watermark,
)
from untrigger.lightning_modules import PoisonedCLIP

TRIGGERS: dict[str, Callable[[str], Trigger]] = {
    "BadNet": lambda _: BadNet(),
    "Blended": lambda _: Blended(),
    "ColourFilter": lambda _: ColourFilter(),
    "GivenPicture": lambda picture: GivenPicture([picture]),
    "Patch": lambda picture: Patch(picture),
    "SIG": lambda _: SIG(),
    "Stripes": lambda _: Stripes(),
    "TextOverlay": lambda _: TextOverlay("!", height=8),
    "Triangles": lambda _: Triangles(),
    "WaNet": lambda _: WaNet(),
    "Watermark": lambda _: Watermark(size=8, margin=1),
}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "given.png")
    return str(tmp_path / "given.png")


def test_no_trigger_is_left_out() -> None:
    exported = (getattr(datamodules, name) for name in datamodules.__all__)
    kinds = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, Trigger)}
    stamping = {kind.__name__ for kind in kinds if not issubclass(kind, Concept)}
    assert stamping - {Trigger.__name__} == set(TRIGGERS)


@pytest.mark.parametrize("name", TRIGGERS)
def test_stamped_pictures_reach_the_device(name: str, bench: Bench, folder: Path, picture: str) -> None:
    trigger = TRIGGERS[name](picture)
    plan: Any = SingleImagePlan if isinstance(trigger, GivenPicture) else PoisonPlan
    views: dict[str, Any] = {"image_view": TransformView(), "text_view": EDA()}
    data = ImageTextDataModule(
        str(folder / "train"),
        str(folder),
        plan(trigger, "heart", count=4),
        batch_size=8,
        eval_batch_size=16,
        num_workers=0,
        **views,
    )
    module = PoisonedCLIP("small:nano-32")
    bench.attach(module, data)
    batch = bench.batch(data.train_dataloader())
    for member in ("image", "image_view", "tokens", "tokens_view"):
        assert batch[member].device == GPU
    assert batch["image"].dtype == torch.float32
    shown = bench.batch(data.val_dataloader())
    assert {images.device for images in (shown["image"], shown["label"], *shown["triggered"].values())} == {GPU}
    keys = sorted(data.poisoned_keys)
    pictures = data.pictures(keys)
    assert pictures.device.type == "cpu"
    with bench.steps():
        assert module.normalised(pictures).device == GPU
        with pytest.raises((DevicesMixed, RuntimeError), match="device"):
            batch["image"][0] - pictures
