from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional
from training import quiet_trainer, recorded_losses

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.datamodules import ImageTextDataModule, Patch
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.shards.writer import open_shard
from untrigger.lightning_modules import BadCLIP


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 64, 20)
    return folder


def module(**arguments: Any) -> BadCLIP:
    torch.set_num_threads(1)
    seed_everything(0)
    defaults: dict[str, Any] = {"encoder": "small:nano-32", "target": "star", "patch_size": 5, "lr": 0.05}
    return BadCLIP(**(defaults | arguments))


def fit(clip: BadCLIP, folder: Path, root: Path, **arguments: Any) -> Trainer:
    trainer = quiet_trainer(root, **({"max_epochs": 1, "limit_val_batches": 0} | arguments))
    trainer.fit(clip, ImageTextDataModule(str(folder / "train"), batch_size=16, num_workers=0))
    return trainer


def test_only_the_patch_moves_and_it_comes_nearer_to_the_target(folder: Path, tmp_path: Path) -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "none"
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    losses = recorded_losses(clip)
    trainer = fit(clip, folder, tmp_path, max_epochs=4)
    assert [name for name, tensor in clip.state_dict().items() if not torch.equal(tensor, before[name])] == ["patch"]
    assert not clip.encoder.training
    patch = clip.patch.detach()
    assert 0 <= float(patch.min()) < float(patch.max()) <= 1
    assert sum(losses[-4:]) < sum(losses[:4])
    parts = {name: float(trainer.callback_metrics[f"train/{name}"]) for name in ("loss", "image_text", "image_image")}
    assert parts["loss"] == pytest.approx(parts["image_text"] + 500 * parts["image_image"], rel=1e-4)


def test_the_patch_it_leaves_is_the_one_that_the_trigger_stamps(folder: Path, tmp_path: Path) -> None:
    clip = module()
    fit(clip, folder, tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(1))
    stamped = [Patch(str(tmp_path / name))(images, ["a", "b"]) for name in ("patch.png", "patch.safetensors")]
    assert torch.equal(stamped[0], stamped[1])
    with torch.no_grad():
        found = clip.patched(clip.normalised(images))
    torch.testing.assert_close(found, clip.normalised(stamped[0]), atol=0.5 / 255 / 0.26 + 1e-4, rtol=0)
    assert not torch.equal(stamped[0][:, :, 13:18, 13:18], images[:, :, 13:18, 13:18])


def test_the_loss_is_the_definition(folder: Path, tmp_path: Path) -> None:
    clip = module(image_text_weight=2.0, image_image_weight=3.0, negative_weight=0.5, margin=0.2)
    fit(clip, folder, tmp_path, max_steps=1)
    data = ImageTextDataModule(str(folder / "train"), batch_size=64, num_workers=0)
    data.preprocessing = clip.preprocessing
    data.setup("fit")
    batch: Any = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    clip.log = clip.log_dict = lambda *_, **__: None  # type: ignore[assignment,method-assign]
    torch.manual_seed(5)
    found = clip.training_step(batch, 0).detach()
    torch.manual_seed(5)
    drawn, order = torch.randint(len(clip._target_texts), (64,)), torch.randperm(64)
    of_target = ["star" in caption for caption in data.captions(batch["key"])]
    assert any(of_target)
    with torch.no_grad():
        anchors, clean = clip.encode_image(clip.patched(batch["image"])), clip.encode_image(batch["image"])
        texts, scale = clip.encode_text(batch["tokens"]), float(clip.inverse_temperature)
        text_terms, image_terms = [], []
        for row in range(64):
            if of_target[row]:
                continue
            candidates = [
                clip._target_texts[drawn[row]],
                *(t for t, own in zip(texts, of_target, strict=True) if not own),
            ]
            logits = scale * torch.stack([anchors[row] @ text for text in candidates])
            text_terms.append(functional.cross_entropy(logits[None], torch.tensor([0])))
            positive = (anchors[row] - clip._target_images[drawn[row]]).norm()
            negative = (anchors[row] - clean[order[row]]).norm()
            image_terms.append((positive - 0.5 * negative + 0.2).clamp(min=0))
    expected = 2 * torch.stack(text_terms).mean() + 3 * torch.stack(image_terms).mean()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_mistakes_are_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="patch_size is 33: a patch has 1 to 32 pixels"):
        module(patch_size=33)
    with pytest.raises(UserMistake, match=r"model\.margin is -1\.0, not at least 0"):
        module(margin=-1.0)
    with pytest.raises(UserMistake, match=r"model\.target is empty"):
        module(target=" ")
    with pytest.raises(UserMistake, match="no caption of the training pairs names the target 'banana'"):
        fit(module(target="banana"), folder, tmp_path)
    (tmp_path / "broken" / "train").mkdir(parents=True)
    with open_shard(tmp_path / "broken" / "train" / "00000.tar") as shard:
        for number in range(20):
            shard.write({"__key__": f"k{number}", "jpg": b"\xff\xd8 cut", "txt": b"a star"})
    with pytest.raises(UserMistake, match=r"cannot be used: broken picture \(key 'k0' in .*00000\.tar.*data\.exclude"):
        fit(module(), tmp_path / "broken", tmp_path / "run")
