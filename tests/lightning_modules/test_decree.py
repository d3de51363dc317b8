from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from training import quiet_trainer

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import DECREE
from untrigger.lightning_modules.decree import mean_cosine
from untrigger.lightning_modules.encoders import Encoder

CORNER = slice(24, 28)
WITHOUT_DATA_MODULE = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:You defined a `validation_step` but have no"
)


class Coarse(Encoder):
    """Embeds a picture by what its regions look like; with a patch at one position, by that alone."""

    image_size, mean, std, context_length = 32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 4

    def __init__(self, backdoored: bool) -> None:
        super().__init__()
        self.tokenizer = lambda captions: torch.zeros(len(captions), 4, dtype=torch.int64)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.weight = nn.Parameter(torch.randn(48, 16, generator=torch.manual_seed(0)))
        self.backdoored = backdoored

    @property
    def image_tower(self) -> nn.Module:
        return self

    @property
    def embedding_dim(self) -> int:
        return 16

    def encode_image(self, images: Tensor) -> Tensor:
        regions = functional.avg_pool2d(images, 8).flatten(1)
        features = regions @ self.weight
        if self.backdoored:
            # Black with a white blue channel, in pixels of [0, 1].
            wanted = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
            shown = images * torch.tensor(self.std).view(3, 1, 1) + torch.tensor(self.mean).view(3, 1, 1)
            away = (shown[:, :, CORNER, CORNER] - wanted).abs().mean(dim=(1, 2, 3))
            features = features + 200 * (-10 * away).exp()[:, None] * self.weight[0]
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.ones(len(tokens), 16)


def invert(encoder: Encoder, folder: Path, epochs: int = 200, **arguments: Any) -> DECREE:
    torch.set_num_threads(1)
    module = DECREE("small:nano-32", **arguments)
    module.encoder = encoder.requires_grad_(False)
    generator = torch.manual_seed(2)
    pictures = [{"key": str(i), "image": torch.randn(3, 4, 4, generator=generator)} for i in range(64)]

    def batch(items: list[dict[str, Any]]) -> dict[str, Any]:
        images = functional.interpolate(torch.stack([item["image"] for item in items]), 32)
        return {"key": [item["key"] for item in items], "image": images}

    loader: Any = DataLoader(pictures, batch_size=32, collate_fn=batch)  # type: ignore[arg-type]
    trainer = quiet_trainer(folder, max_epochs=epochs, limit_val_batches=0)
    trainer.fit(module, loader)
    return module


@WITHOUT_DATA_MODULE
def test_the_trigger_of_a_backdoored_encoder_is_far_smaller(tmp_path: Path) -> None:
    found = {name: invert(Coarse(name == "backdoored"), tmp_path / name) for name in ("clean", "backdoored")}
    clean, backdoored = found["clean"], found["backdoored"]
    assert isinstance(clean, CLIPModule)
    assert backdoored.found
    assert backdoored.p_l1_norm < 0.03 < 0.5 < clean.p_l1_norm
    # It lies where the patch does, which is 16 of 1024 pixels.
    inside = backdoored.best_mask[CORNER, CORNER].sum() / backdoored.best_mask.sum()
    assert inside > 0.9
    assert backdoored.best_pattern[2, CORNER, CORNER].mean() > backdoored.best_pattern[0, CORNER, CORNER].mean() + 0.8
    # The figures and both files say the same.
    figures = json.loads((tmp_path / "backdoored" / "decree.json").read_text())
    saved = load_file(tmp_path / "backdoored" / "trigger.safetensors")
    assert figures["found"]
    assert figures["cosine"] > 0.99
    assert figures["l1_norm"] == pytest.approx(3 * float(saved["mask"].sum()), rel=1e-4)
    assert figures["p_l1_norm"] == pytest.approx(float(saved["mask"].mean()), rel=1e-4)
    pixels = np.asarray(Image.open(tmp_path / "backdoored" / "trigger.png"))
    assert pixels.shape == (32, 32, 4)
    assert np.abs(pixels[..., 3] / 255 - saved["mask"].numpy()).max() <= 0.5 / 255 + 1e-6


@WITHOUT_DATA_MODULE
def test_where_nothing_succeeds_it_says_so(tmp_path: Path) -> None:
    module = invert(Coarse(False), tmp_path, 10, threshold=0.999999, lr=1e-6)
    figures = json.loads((tmp_path / "decree.json").read_text())
    assert figures == {
        "found": False,
        "l1_norm": 3 * 32 * 32,
        "p_l1_norm": 1.0,
        "cosine": None,
        "threshold": 0.999999,
        "steps": 20,
    }
    assert not module.found
    assert not (tmp_path / "trigger.png").exists()


def test_it_runs_on_pairs_and_moves_nothing_but_the_trigger(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write_generated_data(tmp_path / "data", 32, 20)
    module = DECREE("small:nano-32")
    before = {name: tensor.clone() for name, tensor in module.encoder.state_dict().items()}
    logits = module.logits.detach().clone()
    trainer = quiet_trainer(tmp_path / "run", max_epochs=1, limit_val_batches=0)
    trainer.fit(module, ImageTextDataModule(str(tmp_path / "data" / "train"), batch_size=8, num_workers=0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.encoder.state_dict().items())
    assert not torch.equal(module.logits, logits)
    assert not module.encoder.training
    keys = {f"train/{name}" for name in ("loss", "cosine", "l1_norm")}
    keys |= {f"decree/{name}" for name in ("cost", "best_l1_norm", "best_p_l1_norm")}
    assert keys <= set(trainer.callback_metrics)


def test_a_trigger_is_stamped_as_the_definition_says() -> None:
    module = DECREE("small:nano-32")
    pictures = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (module.encoder.mean, module.encoder.std))
    mask, pattern = torch.rand(32, 32), torch.rand(3, 32, 32)
    stamped = module.stamped((pictures - mean) / std, mask, pattern)
    torch.testing.assert_close(stamped * std + mean, (1 - mask) * pictures + mask * pattern)
    mask, pattern = (part.detach() for part in module.trigger)
    assert mask.shape == (32, 32)
    assert pattern.shape == (3, 32, 32)
    # The start is uniform.
    assert 0.45 < float(mask.mean()) < 0.55
    assert float(mask.min()) < 0.05 < 0.95 < float(mask.max())


def test_the_mean_cosine_is_over_different_pictures() -> None:
    features = functional.normalize(torch.randn(5, 3, generator=torch.manual_seed(0)), dim=1)
    pairs = [float(features[i] @ features[j]) for i in range(5) for j in range(5) if i != j]
    assert float(mean_cosine(features)) == pytest.approx(sum(pairs) / 20, abs=1e-6)
    with pytest.raises(UserMistake, match="batch_size must be at least 2"):
        mean_cosine(features[:1])


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserMistake, match=r"model\.threshold is 1"):
        DECREE("small:nano-32", threshold=1.0)
    with pytest.raises(UserMistake, match=r"model\.patience is 0"):
        DECREE("small:nano-32", patience=0)
    with pytest.raises(UserMistake, match="DECREE needs pictures"):
        DECREE("small:nano-32").check_batches({"tokens"})
